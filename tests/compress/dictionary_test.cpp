// Codecs with a dictionary, blobs that name one, and what happens when it is missing or wrong.
#include "compress/dictionary.h"

#include <atomic>
#include <thread>

#include "compress/dictionary_set.h"
#include "tests/compress/blocks.h"

namespace pnode::compress::testing {
namespace {

constexpr std::size_t content_bytes = 16384;
constexpr int levels[] = {-7, -1, 1, 3, 9, 19};

// Records of one kind, as a heap holds them.
Block trained_content(Random& random) {
    Block samples;
    for (int page = 0; page < 256; ++page) {
        const Block block = make_block(Pattern::json, 4096, random);
        samples.insert(samples.end(), block.begin(), block.end());
    }
    Block content(content_bytes);
    content.resize(Dictionary::train(samples, 4096, content));
    return content;
}

class DictionaryTest : public ::testing::Test {
  protected:
    const Dictionary* make(int level, Dictionary::Version version) {
        memory_ = std::make_unique<GuardedBuffer>(Dictionary::memory_bytes(content_.size(), level));
        const Dictionary* const made = Dictionary::make(memory_->span(), content_, level, version);
        EXPECT_NE(made, nullptr) << level;
        EXPECT_TRUE(memory_->intact());
        return made;
    }
    static CodecChoice choice(const char* name, const Dictionary* dictionary) {
        return {.codec = codec_by_name(name), .level = dictionary->zstd_level(), .dictionary = dictionary};
    }
    // A blob of `block`, with exactly the scratch that was asked for.
    Block blob_of(const Block& block, const CodecChoice& choice) {
        const GuardedBuffer scratch(encode_scratch_bytes(choice));
        Block blob(2 * block.size() + 1024);
        blob.resize(encode(block, key_.hash(block), choice, blob, scratch.span()));
        EXPECT_TRUE(scratch.intact());
        return blob;
    }
    DecodeResult decode_blob(Bytes blob, Block* decoded, const DictionarySet* set) {
        const GuardedBuffer scratch(decode_scratch_bytes_max());
        const GuardedBuffer room(decoded->size());
        Dictionary::Version version = 0;
        const bool names_one = set != nullptr && stored_dictionary(blob, &version);
        const DecodeResult result = decode(blob, key_, room.span(), scratch.span(), nullptr,
                                           names_one ? set->find(version) : nullptr);
        EXPECT_TRUE(scratch.intact() && room.intact());
        std::ranges::copy(room.span(), decoded->begin());
        return result;
    }

    Random random_{test_seed()};
    BlobKey key_{std::span<const std::byte, 32>(make_block(Pattern::random, 32, random_))};
    Block content_ = trained_content(random_);
    std::unique_ptr<GuardedBuffer> memory_;
    DictionarySet set_;
};

TEST_F(DictionaryTest, RoundTripsEveryPatternSizeAndLevel) {
    ASSERT_FALSE(content_.empty());
    for (const int level : levels) {
        DictionarySet set;
        const Dictionary* const dictionary = make(level, 7);
        ASSERT_TRUE(set.publish(*dictionary));
        for (const char* name : {"lz4", "zstd"})
            for (const std::size_t bytes :
                 {std::size_t{64}, std::size_t{4096}, std::size_t{16384}, block_bytes_max})
                for (const Pattern pattern : all_patterns) {
                    SCOPED_TRACE(::testing::Message()
                                 << name << level << ' ' << name_of(pattern) << ' ' << bytes);
                    const Block block = make_block(pattern, bytes, random_);
                    const Block blob = blob_of(block, choice(name, dictionary));
                    ASSERT_FALSE(blob.empty());
                    Block decoded(bytes);
                    ASSERT_EQ(decode_blob(blob, &decoded, &set), DecodeResult::ok);
                    ASSERT_EQ(decoded, block);
                }
    }
    EXPECT_TRUE(memory_->intact());
}

TEST_F(DictionaryTest, APageBecomesSmallerThanWithoutOne) {
    const Dictionary* const dictionary = make(3, 1);
    for (const char* name : {"lz4", "zstd"}) {
        std::size_t with = 0, without = 0;
        for (int page = 0; page < 32; ++page) {
            const Block block = make_block(Pattern::json, 4096, random_);
            with += blob_of(block, choice(name, dictionary)).size();
            without += blob_of(block, {codec_by_name(name), 3}).size();
        }
        EXPECT_LT(with, without) << name;
    }
}

// The encoder stays in the scratch: what it has not finished must not be in the way of what comes next.
TEST_F(DictionaryTest, ABlockThatDoesNotFitIsNoneOfTheNextOnesBusiness) {
    for (const char* name : {"lz4", "zstd"})
        for (const int level : levels) {
            SCOPED_TRACE(::testing::Message() << name << level);
            const CodecChoice with = choice(name, make(level, 1));
            const GuardedBuffer scratch(encode_scratch_bytes(with));
            const Block noise = make_block(Pattern::random, 4096, random_);
            const Block page = make_block(Pattern::json, 4096, random_);
            Block blob(4096 - 512);
            ASSERT_EQ(encode(noise, key_.hash(noise), with, blob, scratch.span()), 0u);
            EXPECT_NE(encode(page, key_.hash(page), with, blob, scratch.span()), 0u);
            EXPECT_EQ(encode(page, key_.hash(page), with, MutableBytes(blob).first(64), scratch.span()), 0u);
            EXPECT_NE(encode(page, key_.hash(page), with, blob, scratch.span()), 0u);
        }
}

// Made in its own time, read by the same decoder.
TEST_F(DictionaryTest, Lz4ThatTakesItsTimeIsReadAsLz4) {
    CodecChoice quick, slow;
    ASSERT_TRUE(parse_codec_choice("lz4", &quick));
    ASSERT_TRUE(parse_codec_choice("lz4,dict", &slow));
    slow = recompression_of(slow);
    ASSERT_EQ(dictionary_level(slow), Dictionary::for_lz4_hc);
    const Dictionary* const dictionary = make(Dictionary::for_lz4_hc, 1);
    ASSERT_NE(dictionary, nullptr);
    ASSERT_TRUE(set_.publish(*dictionary));
    EXPECT_EQ(dictionary->zstd_encoder(), nullptr);
    quick.dictionary = dictionary;
    for (const bool with : {true, false}) {
        slow.dictionary = with ? dictionary : nullptr;
        const GuardedBuffer scratch(encode_scratch_bytes(slow));
        for (const std::size_t bytes :
             {std::size_t{64}, std::size_t{4096}, std::size_t{16384}, block_bytes_max})
            for (const Pattern pattern : all_patterns) {
                SCOPED_TRACE(::testing::Message() << name_of(pattern) << ' ' << bytes << ' ' << with);
                const Block block = make_block(pattern, bytes, random_);
                Block blob(2 * block.size() + 1024);
                blob.resize(encode(block, key_.hash(block), slow, blob, scratch.span()));
                EXPECT_TRUE(scratch.intact());
                Block decoded(block.size());
                ASSERT_EQ(decode_blob(blob, &decoded, &set_), DecodeResult::ok);
                EXPECT_EQ(decoded, block);
            }
    }
    const Block page = make_block(Pattern::json, 4096, random_);
    slow.dictionary = dictionary;
    EXPECT_LT(blob_of(page, slow).size(), blob_of(page, quick).size());
}

TEST_F(DictionaryTest, ZstdRefusesADictionaryThatIsNotForIt) {
    const Dictionary* const dictionary = make(Dictionary::for_lz4_hc, 1);
    const GuardedBuffer scratch(
        encode_scratch_bytes({.codec = codec_by_name("zstd"), .level = 3, .dictionary = dictionary}));
    const Block page = make_block(Pattern::json, 4096, random_);
    Block blob(8192);
    EXPECT_EQ(
        encode(page, key_.hash(page), {.codec = codec_by_name("zstd"), .level = 3, .dictionary = dictionary},
               blob, scratch.span()),
        0u);
}

TEST_F(DictionaryTest, ABlobNamesItsDictionary) {
    const Dictionary* const dictionary = make(3, 4711);
    const Block block = make_block(Pattern::json, 4096, random_);
    Dictionary::Version version = 0;
    EXPECT_TRUE(stored_dictionary(blob_of(block, choice("zstd", dictionary)), &version));
    EXPECT_EQ(version, 4711);
    EXPECT_FALSE(stored_dictionary(blob_of(block, {codec_by_name("zstd"), 3}), &version));
    EXPECT_FALSE(stored_dictionary(
        blob_of(make_block(Pattern::word, 4096, random_), choice("lz4", dictionary)), &version))
        << "a same-filled block needs none";
}

TEST_F(DictionaryTest, WithoutItABlobIsRefused) {
    const Dictionary* const dictionary = make(3, 5);
    const Block block = make_block(Pattern::json, 4096, random_);
    Block decoded(block.size());
    for (const char* name : {"lz4", "zstd"}) {
        const Block blob = blob_of(block, choice(name, dictionary));
        EXPECT_EQ(decode_blob(blob, &decoded, nullptr), DecodeResult::missing_dictionary);
        EXPECT_EQ(decode_blob(blob, &decoded, &set_), DecodeResult::missing_dictionary);
    }
    // Another version in the same slot is not the one.
    const GuardedBuffer other_memory(Dictionary::memory_bytes(content_.size(), 3));
    const Dictionary* const other =
        Dictionary::make(other_memory.span(), content_, 3, 5 + DictionarySet::versions_max);
    ASSERT_TRUE(set_.publish(*other));
    EXPECT_EQ(set_.find(5), nullptr);
    const GuardedBuffer scratch(decode_scratch_bytes_max());
    EXPECT_EQ(
        decode(blob_of(block, choice("zstd", dictionary)), key_, decoded, scratch.span(), nullptr, other),
        DecodeResult::missing_dictionary);
}

TEST_F(DictionaryTest, OneWithOtherContentNeverGivesAWrongByte) {
    const Dictionary* const dictionary = make(3, 5);
    const Block block = make_block(Pattern::json, 4096, random_);
    const Block blobs[] = {blob_of(block, choice("lz4", dictionary)),
                           blob_of(block, choice("zstd", dictionary))};
    ASSERT_TRUE(set_.publish(*dictionary));
    // The content's bytes in the dictionary's memory, where matches are taken from. Its first half holds
    // zstd's tables, which the library trusts.
    auto* const bytes = const_cast<std::byte*>(dictionary->content().data());
    for (std::size_t at = content_.size() / 2; at < content_.size(); ++at) bytes[at] ^= std::byte{0x20};
    EXPECT_FALSE(dictionary->is_intact());
    Block decoded(block.size());
    for (const Block& blob : blobs)
        EXPECT_EQ(decode_blob(blob, &decoded, &set_), DecodeResult::bad_dictionary);
}

TEST_F(DictionaryTest, ContentThatNobodyTrainedIsRefused) {
    const auto make_of = [&](const Block& content, std::size_t memory_bytes) {
        const GuardedBuffer memory(memory_bytes);
        return Dictionary::make(memory.span(), content, 3, 1) != nullptr;
    };
    const std::size_t enough = Dictionary::memory_bytes(content_.size(), 3);
    EXPECT_TRUE(make_of(content_, enough));
    EXPECT_FALSE(make_of(content_, enough - 1));
    EXPECT_FALSE(make_of({}, enough));
    EXPECT_FALSE(make_of(make_block(Pattern::random, content_.size() / 8 * 8, random_), enough));
    Block few(4096);
    EXPECT_EQ(Dictionary::train(make_block(Pattern::json, 4096, random_), 4096, few), 0u) << "one sample";
}

TEST_F(DictionaryTest, DamagedBlobsGiveNoWrongByte) {
    const Dictionary* const dictionary = make(3, 5);
    ASSERT_TRUE(set_.publish(*dictionary));
    for (int round = 0; round < 2000; ++round) {
        const Block block = make_block(Pattern::json, 4096, random_);
        Block blob = blob_of(block, choice(round % 2 ? "lz4" : "zstd", dictionary));
        for (std::uint64_t flips = 1 + random_() % 4; flips > 0; --flips)
            blob[random_() % blob.size()] ^= static_cast<std::byte>(1 + random_() % 255);
        if (random_() % 4 == 0) blob.resize(random_() % (blob.size() + 1));
        Block decoded(block.size());
        if (decode_blob(blob, &decoded, &set_) == DecodeResult::ok) {
            EXPECT_EQ(decoded, block);
        }
    }
}

TEST_F(DictionaryTest, IsRetiredWhenItsLastReferenceGoes) {
    const Dictionary* const first = make(3, 1);
    ASSERT_TRUE(set_.publish(*first));
    EXPECT_EQ(set_.references(1), 1u);
    EXPECT_EQ(set_.acquire(), first);  // for a blob
    EXPECT_EQ(set_.take_retired(), nullptr);

    const GuardedBuffer second_memory(Dictionary::memory_bytes(content_.size(), 3));
    const Dictionary* const second = Dictionary::make(second_memory.span(), content_, 3, 2);
    ASSERT_TRUE(set_.publish(*second));
    EXPECT_EQ(set_.find(1), first) << "a blob still names it";
    EXPECT_EQ(set_.take_retired(), nullptr);
    EXPECT_EQ(set_.acquire(), second);
    set_.release(2);

    const GuardedBuffer third_memory(Dictionary::memory_bytes(content_.size(), 3));
    const Dictionary* const third =
        Dictionary::make(third_memory.span(), content_, 3, 1 + DictionarySet::versions_max);
    EXPECT_FALSE(set_.publish(*third)) << "its slot is in use";

    set_.release(1);
    EXPECT_EQ(set_.take_retired(), first);
    EXPECT_EQ(set_.find(1), nullptr);
    EXPECT_TRUE(set_.publish(*third));
    EXPECT_EQ(set_.take_retired(), second);
    set_.withdraw();
    EXPECT_EQ(set_.acquire(), nullptr);
    EXPECT_EQ(set_.take_retired(), third);
}

// Threads encode and decode with whatever is current while versions come and go; the memory of a retired one
// is overwritten at once, so that a late user would be found out.
TEST_F(DictionaryTest, VersionsComeAndGoUnderThreadsThatUseThem) {
    constexpr int versions = 40, users = 2;
    const std::size_t bytes = Dictionary::memory_bytes(content_.size(), 1);
    std::vector<std::unique_ptr<GuardedBuffer>> memories;
    for (int version = 0; version < versions; ++version)
        memories.push_back(std::make_unique<GuardedBuffer>(bytes));
    const Block block = make_block(Pattern::json, 4096, random_);
    std::atomic<bool> over{false};
    std::atomic<int> wrong{0}, used{0};
    const auto use = [&] {
        const GuardedBuffer scratch(std::max(dictionary_codec_of(codec_by_name("zstd"))->scratch_bytes(1),
                                             decode_scratch_bytes_max()));
        Block blob(8192), decoded(block.size());
        while (!over.load()) {
            const Dictionary* const dictionary = set_.acquire();
            if (dictionary == nullptr) continue;
            const std::size_t size = encode(
                block, key_.hash(block),
                {.codec = codec_by_name("zstd"), .level = 1, .dictionary = dictionary}, blob, scratch.span());
            Dictionary::Version version = 0;
            const bool right = stored_dictionary(Bytes(blob).first(size), &version) &&
                               decode(Bytes(blob).first(size), key_, decoded, scratch.span(), nullptr,
                                      set_.find(version)) == DecodeResult::ok &&
                               decoded == block;
            if (!right) ++wrong;
            ++used;
            set_.release(dictionary->version());
        }
    };
    std::vector<std::jthread> threads;
    for (int user = 0; user < users; ++user) threads.emplace_back(use);
    int retired = 0;
    const auto collect = [&] {
        while (const Dictionary* const each = set_.take_retired()) {
            std::ranges::fill(memories[each->version()]->span(), std::byte{0xEE});
            ++retired;
        }
    };
    for (int version = 0; version < versions; ++version) {
        const Dictionary* const next =
            Dictionary::make(memories[static_cast<std::size_t>(version)]->span(), content_, 1,
                             static_cast<Dictionary::Version>(version));
        ASSERT_NE(next, nullptr);
        while (!set_.publish(*next)) collect();
        const int before = used.load();
        while (used.load() < before + 2) collect();  // each version is used
    }
    over.store(true);
    threads.clear();
    set_.withdraw();
    collect();
    EXPECT_EQ(wrong.load(), 0);
    EXPECT_EQ(retired, versions);
}

}  // namespace
}  // namespace pnode::compress::testing
