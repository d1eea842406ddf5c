// Encoding and decoding never allocate: this program's malloc counts, for the thread that asks it to.

#include "compress/dictionary_set.h"
#include "tests/compress/blocks.h"

namespace {
thread_local bool counting = false;
thread_local int allocations = 0;

void count() noexcept {
    if (counting) ++allocations;
}
}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

__attribute__((visibility("default"))) void* malloc(std::size_t bytes) {
    count();
    return __libc_malloc(bytes);
}
__attribute__((visibility("default"))) void* calloc(std::size_t number, std::size_t bytes) {
    count();
    return __libc_calloc(number, bytes);
}
__attribute__((visibility("default"))) void* realloc(void* old, std::size_t bytes) {
    count();
    return __libc_realloc(old, bytes);
}
__attribute__((visibility("default"))) void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
    count();
    return __libc_memalign(alignment, bytes);
}
}

namespace pnode::compress::testing {
namespace {

TEST(NoAllocation, TheCountIsTrue) {
    counting = true;
    void* volatile memory = std::malloc(100);  // volatile: a pair that nobody looks at is optimised away
    std::free(memory);
    counting = false;
    EXPECT_GE(allocations, 1);
}

TEST(NoAllocation, InEncodeAndDecodeFromTheFirstCallOn) {
    Random random(test_seed());
    const BlobKey key(std::span<const std::byte, 32>(make_block(Pattern::random, 32, random)));
    for (const char* text : {"lz4", "zstd:-3", "zstd:1", "zstd:3", "zstd:9", "zstd:19", "deflate"}) {
        for (const std::size_t bytes : block_sizes) {
            const Block block = make_block(Pattern::json, bytes, random);
            Block decoded(bytes), blob(2 * bytes + 1024);
            allocations = 0;
            counting = true;
            CodecChoice choice;
            const bool parsed = parse_codec_choice(text, &choice);
            const std::size_t scratch_bytes =
                std::max(encode_scratch_bytes(choice), decode_scratch_bytes_max());
            counting = false;
            ASSERT_TRUE(parsed);
            const GuardedBuffer scratch(scratch_bytes);
            counting = true;
            const std::size_t blob_bytes = encode(block, key.hash(block), choice, blob, scratch.span());
            const DecodeResult result = decode(Bytes(blob).first(blob_bytes), key, decoded, scratch.span());
            counting = false;
            EXPECT_EQ(result, DecodeResult::ok);
            EXPECT_EQ(allocations, 0) << text << ' ' << bytes;
        }
    }
}

TEST(NoAllocation, WithADictionary) {
    Random random(test_seed());
    const BlobKey key(std::span<const std::byte, 32>(make_block(Pattern::random, 32, random)));
    const Block samples = make_block(Pattern::json, 256 * 4096, random),
                block = make_block(Pattern::json, 4096, random);
    Block content(8192), blob(8192), decoded(block.size());
    content.resize(Dictionary::train(samples, 4096, content));
    const GuardedBuffer memory(Dictionary::memory_bytes(content.size(), 3));
    for (const char* name : {"lz4", "zstd"}) {
        DictionarySet set;
        allocations = 0;
        counting = true;
        const Dictionary* const dictionary = Dictionary::make(memory.span(), content, 3, 1);
        const CodecChoice choice{.codec = codec_by_name(name), .level = 3, .dictionary = dictionary};
        const bool published = set.publish(*dictionary);
        const std::size_t scratch_bytes = std::max(encode_scratch_bytes(choice), decode_scratch_bytes_max());
        counting = false;
        ASSERT_TRUE(published);
        const GuardedBuffer scratch(scratch_bytes);
        counting = true;
        const std::size_t blob_bytes = encode(block, key.hash(block), choice, blob, scratch.span());
        const DecodeResult result =
            decode(Bytes(blob).first(blob_bytes), key, decoded, scratch.span(), nullptr, set.current());
        counting = false;
        EXPECT_EQ(result, DecodeResult::ok);
        EXPECT_EQ(allocations, 0) << name;
    }
}

}  // namespace
}  // namespace pnode::compress::testing
