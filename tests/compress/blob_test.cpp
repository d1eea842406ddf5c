// Blobs: what is stored decodes to what was given, and nothing else is ever called ok.
#include <array>
#include <atomic>
#include <thread>

#include "tests/compress/blocks.h"

namespace pnode::compress::testing {
namespace {

BlobKey key_of(unsigned char first) {
    std::array<std::byte, 32> seed{};
    for (std::size_t i = 0; i < seed.size(); ++i) seed[i] = static_cast<std::byte>(first + i);
    return BlobKey(seed);
}

struct Stored {
    Block contents;
    Block blob;
};

class BlobTest : public ::testing::TestWithParam<const char*> {
  protected:
    CodecChoice choice_ = choice_of(GetParam());
    GuardedBuffer encode_scratch_{encode_scratch_bytes(choice_)};
    GuardedBuffer decode_scratch_{decode_scratch_bytes_max()};
    BlobKey key_ = key_of(1);
    Random random_{test_seed()};

    Stored store(Pattern pattern, std::size_t bytes) {
        const Block block = make_block(pattern, bytes, random_);
        const GuardedBuffer room(blob_header_bytes + choice_.codec->bound(bytes));
        const std::size_t blob_bytes =
            encode(block, key_.hash(block), choice_, room.span(), encode_scratch_.span());
        EXPECT_NE(blob_bytes, 0u);
        EXPECT_TRUE(room.intact());
        const MutableBytes blob = room.span().first(blob_bytes);
        return {block, Block(blob.begin(), blob.end())};
    }
    DecodeResult decode_into(const GuardedBuffer& contents, Bytes blob, const BlobKey& key) {
        const DecodeResult result = decode(blob, key, contents.span(), decode_scratch_.span());
        EXPECT_TRUE(contents.intact());
        EXPECT_TRUE(decode_scratch_.intact());
        return result;
    }
    // For a damaged blob: any answer but "ok" with other bytes.
    DecodeResult expect_never_wrong(Bytes blob, const Block& truth) {
        const GuardedBuffer contents(truth.size());
        const DecodeResult result = decode_into(contents, blob, key_);
        EXPECT_TRUE(result != DecodeResult::ok || std::ranges::equal(contents.span(), truth));
        return result;
    }
};

TEST_P(BlobTest, DecodesToWhatWasGiven) {
    for (const std::size_t bytes : block_sizes) {
        for (const Pattern pattern : all_patterns) {
            SCOPED_TRACE(::testing::Message() << name_of(pattern) << ' ' << bytes);
            const Stored stored = store(pattern, bytes);
            EXPECT_EQ(stored_hash(stored.blob), key_.hash(stored.contents));
            EXPECT_EQ(stored_blob_bytes(stored.blob), stored.blob.size());
            const GuardedBuffer contents(bytes);
            ASSERT_EQ(decode_into(contents, stored.blob, key_), DecodeResult::ok);
            ASSERT_TRUE(std::ranges::equal(contents.span(), stored.contents));
        }
    }
}

TEST_P(BlobTest, SameFilledBlocksAreOneWordWhateverTheChoice) {
    for (const Pattern pattern : {Pattern::zeros, Pattern::word})
        EXPECT_EQ(store(pattern, 65536).blob.size(), blob_header_bytes + 8);
}

TEST_P(BlobTest, ASlotMayBeLongerThanItsBlob) {
    Stored stored = store(Pattern::json, 4096);
    const std::size_t blob_bytes = stored.blob.size();
    for (int i = 0; i < 100; ++i) stored.blob.push_back(static_cast<std::byte>(random_()));
    EXPECT_EQ(stored_blob_bytes(stored.blob), blob_bytes);
    const GuardedBuffer contents(4096);
    ASSERT_EQ(decode_into(contents, stored.blob, key_), DecodeResult::ok);
    EXPECT_TRUE(std::ranges::equal(contents.span(), stored.contents));
}

TEST_P(BlobTest, DidNotFitWritesNothingBesideTheRoomGiven) {
    const Stored stored = store(Pattern::json, 4096);
    for (std::size_t bytes = 0; bytes < stored.blob.size(); ++bytes) {
        const GuardedBuffer room(bytes);
        const std::size_t blob_bytes =
            encode(stored.contents, stored_hash(stored.blob), choice_, room.span(), encode_scratch_.span());
        ASSERT_TRUE(room.intact()) << bytes;
        ASSERT_LE(blob_bytes, bytes);
        if (blob_bytes != 0) {
            ASSERT_EQ(expect_never_wrong(room.span().first(blob_bytes), stored.contents), DecodeResult::ok);
        }
    }
}

TEST_P(BlobTest, TruncationIsToldAsSuch) {
    for (const Pattern pattern : {Pattern::zeros, Pattern::json, Pattern::random}) {
        const Stored stored = store(pattern, 4096);
        for (std::size_t bytes = 0; bytes < stored.blob.size(); ++bytes) {
            const Block part(stored.blob.begin(), stored.blob.begin() + static_cast<std::ptrdiff_t>(bytes));
            ASSERT_EQ(expect_never_wrong(part, stored.contents), DecodeResult::truncated) << bytes;
        }
    }
}

TEST_P(BlobTest, EveryBitOfTheHeaderCounts) {
    for (const Pattern pattern : {Pattern::word, Pattern::json, Pattern::random}) {
        Stored stored = store(pattern, 4096);
        for (std::size_t bit = 0; bit < blob_header_bytes * 8; ++bit) {
            SCOPED_TRACE(::testing::Message() << name_of(pattern) << " bit " << bit);
            const std::byte flip{static_cast<unsigned char>(1U << bit % 8)};
            stored.blob[bit / 8] ^= flip;
            const DecodeResult result = expect_never_wrong(stored.blob, stored.contents);
            stored.blob[bit / 8] ^= flip;
            ASSERT_NE(result, DecodeResult::ok);
            if (bit < 128) {
                ASSERT_EQ(result, DecodeResult::hash_mismatch);
            }
            if (bit / 8 == 17) {
                ASSERT_EQ(result, DecodeResult::bad_version);
            }
            if (bit / 8 == 18 || bit / 8 == 19) {
                ASSERT_EQ(result, DecodeResult::wrong_source_size);
            }
        }
    }
}

TEST_P(BlobTest, DamageToThePayloadIsNeverShown) {
    for (const Pattern pattern : {Pattern::zeros, Pattern::json, Pattern::pointers, Pattern::random}) {
        Stored stored = store(pattern, 4096);
        for (int round = 0; round < 500; ++round) {
            const std::size_t at = blob_header_bytes + random_() % (stored.blob.size() - blob_header_bytes);
            const std::byte before = stored.blob[at];
            stored.blob[at] ^= static_cast<std::byte>(1 + random_() % 255);
            expect_never_wrong(stored.blob, stored.contents);
            stored.blob[at] = before;
        }
        ASSERT_EQ(expect_never_wrong(stored.blob, stored.contents), DecodeResult::ok);
    }
}

TEST_P(BlobTest, AnotherKeyDoesNotFit) {
    const Stored stored = store(Pattern::json, 4096);
    const GuardedBuffer contents(4096);
    EXPECT_EQ(decode_into(contents, stored.blob, key_of(2)), DecodeResult::hash_mismatch);
}

TEST_P(BlobTest, OtherBlockSizesAreRefused) {
    const Stored stored = store(Pattern::json, 4096);
    for (const std::size_t bytes : {0, 64, 4032, 4095, 4097, 4160, 65536}) {
        const GuardedBuffer contents(bytes);
        EXPECT_EQ(decode_into(contents, stored.blob, key_), DecodeResult::wrong_source_size) << bytes;
    }
}

// A block with a hash for each page: what comes out is what went in, page by page; each has its own hash, and
// a blob of the one kind is none of the other.
TEST_P(BlobTest, PagesOfABlockHaveAHashEach) {
    for (const std::size_t pages : {2, 4, 16}) {
        for (const Pattern pattern : all_patterns) {
            SCOPED_TRACE(::testing::Message() << name_of(pattern) << ' ' << pages);
            const Block block = make_block(pattern, pages * hashed_bytes, random_);
            std::vector<ContentHash> hashes;
            for (std::size_t page = 0; page < pages; ++page)
                hashes.push_back(key_.hash(Bytes(block).subspan(page * hashed_bytes, hashed_bytes)));
            const GuardedBuffer room(block_header_bytes(pages) + choice_.codec->bound(block.size()));
            const std::size_t bytes =
                encode_pages(block, hashes, choice_, room.span(), encode_scratch_.span());
            ASSERT_GT(bytes, block_header_bytes(pages));
            ASSERT_TRUE(room.intact());
            const Bytes blob = room.span().first(bytes);
            for (std::size_t page = 0; page < pages; ++page)
                EXPECT_EQ(stored_hash_of(blob, page), hashes[page]);
            const GuardedBuffer contents(block.size());
            ASSERT_EQ(decode_pages(blob, contents.span(), decode_scratch_.span()), DecodeResult::ok);
            EXPECT_TRUE(contents.intact());
            EXPECT_TRUE(std::ranges::equal(contents.span(), block));
            EXPECT_EQ(decode_into(contents, blob, key_), DecodeResult::bad_version);
            const GuardedBuffer page(hashed_bytes);
            EXPECT_EQ(decode_pages(blob, page.span(), decode_scratch_.span()),
                      DecodeResult::wrong_source_size);
        }
    }
}

TEST_P(BlobTest, PagesThatDoNotFitWriteNothingBesideTheRoomGiven) {
    const Block block = make_block(Pattern::json, 4 * hashed_bytes, random_);
    const std::vector<ContentHash> hashes(4);
    const GuardedBuffer large(block_header_bytes(4) + choice_.codec->bound(block.size()));
    const std::size_t wanted = encode_pages(block, hashes, choice_, large.span(), encode_scratch_.span());
    ASSERT_NE(wanted, 0u);
    for (std::size_t bytes = 0; bytes < wanted; bytes += 1 + bytes / 8) {
        const GuardedBuffer room(bytes);
        EXPECT_LE(encode_pages(block, hashes, choice_, room.span(), encode_scratch_.span()), bytes);
        ASSERT_TRUE(room.intact()) << bytes;
    }
    EXPECT_EQ(encode_pages(block, {hashes.data(), 3}, choice_, large.span(), encode_scratch_.span()), 0u);
    EXPECT_EQ(encode_pages(Bytes(block).first(hashed_bytes), {hashes.data(), 1}, choice_, large.span(),
                           encode_scratch_.span()),
              0u);
}

INSTANTIATE_TEST_SUITE_P(Choices, BlobTest, ::testing::Values("lz4", "zstd:-3", "zstd", "zstd:19", "deflate"),
                         [](const auto& test) {
                             std::string name = test.param;
                             for (char& c : name)
                                 if (c == ':' || c == '-') c = '_';
                             return name;
                         });

void set_payload_bytes(Block& blob, std::uint32_t bytes) {
    std::memcpy(blob.data() + 20, &bytes, sizeof bytes);
}

TEST(BlobHeader, EachFieldThatCannotBeIsNamed) {
    const BlobKey key = key_of(1);
    const Block contents(4096, std::byte{9});
    Block blob(blob_header_bytes + 8);
    ASSERT_EQ(encode(contents, key.hash(contents), {}, blob, {}), blob.size());
    const GuardedBuffer decoded(4096), scratch(decode_scratch_bytes_max());
    const auto result = [&] { return decode(blob, key, decoded.span(), scratch.span()); };
    ASSERT_EQ(result(), DecodeResult::ok);
    for (const std::uint32_t bytes : {0U, 9U, 0x80000000U, 0xffffffffU}) {
        set_payload_bytes(blob, bytes);
        EXPECT_EQ(result(), DecodeResult::bad_payload_size) << bytes;
    }
    set_payload_bytes(blob, 7);
    EXPECT_EQ(result(), DecodeResult::decode_failed);
    set_payload_bytes(blob, 8);
    for (const int id : {0, 6, 15, 18, 255}) {
        blob[16] = static_cast<std::byte>(id);
        EXPECT_EQ(result(), DecodeResult::unknown_codec) << id;
    }
}

TEST(BlobHeader, BlocksThatAreNoBlocksAreNotEncoded) {
    const Block contents(65536 + 64);
    Block blob(1 << 17);
    for (const std::size_t bytes : {0, 8, 63, 65, 4095, 65536 + 64})
        EXPECT_EQ(encode(Bytes(contents).first(bytes), {}, {}, blob, {}), 0u) << bytes;
}

TEST(BlobHeader, WithoutACodecOnlySameFilledBlocksAreEncoded) {
    Random random(test_seed());
    const Block contents = make_block(Pattern::counters, 4096, random);
    Block blob(1 << 13);
    EXPECT_EQ(encode(contents, {}, {}, blob, {}), 0u);
}

// Other processes and later builds read what this one stored: the same on every CPU and for ever.
TEST(BlobHeader, StoredBytesAreWhatTheyAreForEver) {
    const BlobKey key = key_of(0);
    const Block contents(4096, std::byte{'x'});
    Block blob(blob_header_bytes + 8);
    ASSERT_EQ(encode(contents, key.hash(contents), {}, blob, {}), blob.size());
    std::string hex;
    for (const std::byte b : blob) {
        constexpr char digits[] = "0123456789abcdef";
        hex += digits[static_cast<int>(b) >> 4];
        hex += digits[static_cast<int>(b) & 15];
    }
    EXPECT_EQ(hex, "853f18e440fe8e231dde294916875f5101014000080000007878787878787878");
}

TEST(BlobKey, HashesDependOnSeedAndOnEveryByte) {
    Random random(test_seed());
    Block contents = make_block(Pattern::text, 4096, random);
    const ContentHash hash = key_of(1).hash(contents);
    EXPECT_EQ(key_of(1).hash(contents), hash);
    EXPECT_NE(key_of(2).hash(contents), hash);
    for (std::byte& b : contents) {
        b ^= std::byte{1};
        EXPECT_NE(key_of(1).hash(contents), hash);
        b ^= std::byte{1};
    }
}

TEST(DecodeResult, EveryResultHasItsOwnSentence) {
    std::vector<std::string> sentences;
    for (int i = 0; i <= static_cast<int>(DecodeResult::hash_mismatch) + 1; ++i)
        sentences.emplace_back(describe(static_cast<DecodeResult>(i)));
    std::ranges::sort(sentences);
    EXPECT_EQ(std::ranges::adjacent_find(sentences), sentences.end());
}

// Rounds that came back wrong, of one thread with scratch of its own.
int wrong_rounds(const BlobKey& key, std::uint64_t seed) {
    Random random(seed);
    const CodecChoice choices[] = {choice_of("lz4"), choice_of("zstd:1"), choice_of("zstd:5"),
                                   choice_of("deflate")};
    const GuardedBuffer scratch(encode_scratch_bytes(choices[2])), decode_scratch(decode_scratch_bytes_max());
    int wrong = 0;
    for (int round = 0; round < 300; ++round) {
        const Block block = make_block(all_patterns[random() % std::size(all_patterns)], 4096, random);
        const CodecChoice& choice = choices[random() % std::size(choices)];
        Block blob(blob_header_bytes + choice.codec->bound(block.size())), decoded(block.size());
        const std::size_t bytes = encode(block, key.hash(block), choice, blob, scratch.span());
        const bool right =
            decode(Bytes(blob).first(bytes), key, decoded, decode_scratch.span()) == DecodeResult::ok;
        wrong += right && decoded == block ? 0 : 1;
    }
    return wrong;
}

TEST(BlobThreads, ManyAtOnceEachWithItsOwnScratch) {
    const BlobKey key = key_of(3);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < 4; ++i)
        threads.emplace_back([&, seed = test_seed() + i] { wrong += wrong_rounds(key, seed); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace pnode::compress::testing
