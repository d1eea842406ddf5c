// The model's own DEFLATE against the libraries: what it encodes they decode, what they encode within 4 KiB
// it decodes, and what reaches further back it refuses.
#include "compress/iaa/model/deflate_model.h"

#include <zlib.h>

#include "compress/iaa/status.h"
#include "tests/compress/blocks.h"

namespace pnode::compress::iaa::model {
namespace {

using namespace pnode::compress::testing;

class IaaDeflateModel : public ::testing::Test {
  protected:
    Random random_{test_seed()};
    const Codec& deflate_ = *codec_by_name("deflate");
    GuardedBuffer scratch_{deflate_.scratch_bytes(0)};

    Block by_zlib(const Block& plain, int window_bits, int strategy) {
        z_stream stream{};
        EXPECT_EQ(::deflateInit2(&stream, 9, Z_DEFLATED, -window_bits, 9, strategy), Z_OK);
        Block packed(::deflateBound(&stream, plain.size()));
        stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
        stream.avail_in = static_cast<uInt>(plain.size());
        stream.next_out = reinterpret_cast<Bytef*>(packed.data());
        stream.avail_out = static_cast<uInt>(packed.size());
        EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
        packed.resize(stream.total_out);
        ::deflateEnd(&stream);
        return packed;
    }
    Block decoded(const Block& packed, std::size_t bytes, Coded* coded) {
        const GuardedBuffer room(bytes);
        *coded = decode(packed, room.span());
        EXPECT_TRUE(room.intact());
        return {room.span().begin(), room.span().end()};
    }
    void expect_decodes(const Block& packed, const Block& plain) {
        Coded coded;
        EXPECT_EQ(decoded(packed, plain.size(), &coded), plain);
        EXPECT_EQ(coded.error, 0);
        EXPECT_FALSE(coded.overflow);
        EXPECT_EQ(coded.bytes, plain.size());
    }
};

TEST_F(IaaDeflateModel, SoftwareReadsWhatItEncodes) {
    const CompressAecs aecs = fixed_codes();
    for (const std::size_t bytes : block_sizes) {
        for (const Pattern pattern : all_patterns) {
            SCOPED_TRACE(::testing::Message() << name_of(pattern) << ' ' << bytes);
            const Block plain = make_block(pattern, bytes, random_);
            const GuardedBuffer room(2 * bytes), back(bytes);
            const Coded coded = encode(aecs, plain, room.span(), true);
            ASSERT_EQ(coded.error, 0);
            ASSERT_FALSE(coded.overflow);
            ASSERT_TRUE(deflate_.decompress(room.span().first(coded.bytes), back.span(), scratch_.span()));
            EXPECT_TRUE(std::ranges::equal(back.span(), plain));
        }
    }
}

// All the codes are the AECS's: with others it writes something else, which decodes with those others only.
TEST_F(IaaDeflateModel, ItKnowsNoCodesButTheAecs) {
    CompressAecs aecs = fixed_codes();
    const Block plain(64, std::byte{'a'});
    Block right(256), other(256);
    const Coded coded = encode(aecs, plain, right, true);
    std::swap(aecs.literal_codes['a'], aecs.literal_codes['b']);
    ASSERT_EQ(encode(aecs, plain, other, true).bytes, coded.bytes);
    EXPECT_NE(right, other);
    const GuardedBuffer back(64);
    ASSERT_TRUE(deflate_.decompress(other, back.span(), scratch_.span()));
    EXPECT_TRUE(std::ranges::all_of(back.span(), [](std::byte b) { return b == std::byte{'b'}; }));
    aecs.literal_codes['a'] = 0;
    EXPECT_EQ(encode(aecs, plain, other, true).error, error::bad_aecs);
}

TEST_F(IaaDeflateModel, ReadsEveryKindOfBlockThatSoftwareWrites) {
    for (const std::size_t bytes : block_sizes) {
        for (const Pattern pattern : all_patterns) {
            SCOPED_TRACE(::testing::Message() << name_of(pattern) << ' ' << bytes);
            const Block plain = make_block(pattern, bytes, random_);
            // zlib keeps matches 262 bytes below its window.
            for (const int strategy : {Z_DEFAULT_STRATEGY, Z_FIXED, Z_HUFFMAN_ONLY, Z_RLE})
                expect_decodes(by_zlib(plain, 12, strategy), plain);
        }
    }
}

// The codec's window is the device's: whatever it writes, up to 64 KiB, the device can read.
TEST_F(IaaDeflateModel, ReadsWhateverTheDeflateCodecWrites) {
    for (const std::size_t bytes : block_sizes) {
        for (const Pattern pattern : all_patterns) {
            SCOPED_TRACE(::testing::Message() << name_of(pattern) << ' ' << bytes);
            const Block plain = make_block(pattern, bytes, random_);
            Block packed(deflate_.bound(bytes));
            packed.resize(deflate_.compress(plain, packed, 0, scratch_.span()));
            expect_decodes(packed, plain);
        }
    }
}

TEST_F(IaaDeflateModel, RefusesDistancesBeyondItsWindow) {
    Block plain = make_block(Pattern::random, 16384, random_);
    std::copy_n(plain.begin(), 1024, plain.begin() + 8192);  // 8 KiB back
    Coded coded;
    decoded(by_zlib(plain, 15, Z_DEFAULT_STRATEGY), plain.size(), &coded);
    EXPECT_EQ(coded.error, error::bad_distance);
}

TEST_F(IaaDeflateModel, NamesWhatIsWrongWithAStream) {
    const auto bytes = [](std::initializer_list<int> list) {
        Block block;
        for (const int value : list) block.push_back(static_cast<std::byte>(value));
        return block;
    };
    const std::pair<Block, std::uint8_t> bad[] = {
        {{}, error::end_of_block},
        {bytes({0x07}), error::block_type},
        {bytes({0x01, 0x01, 0x00, 0x00, 0x00}), error::stored_length},
        {bytes({0x01, 0x04, 0x00, 0xfb, 0xff, 'a'}), error::end_of_block},
        {bytes({0x03, 0x02, 0x00}),
         error::before_start},                     // a match of 3 at distance 1, with nothing before it
        {bytes({0x1b, 0x03}), error::bad_length},  // symbol 286
        {bytes({0xfd, 0xff, 0xff, 255, 255, 255, 255, 255, 255, 255}),
         error::code_lengths},  // 288 literal codes
        {bytes({0x4b}), error::end_of_block},
    };
    for (const auto& [stream, code] : bad) {
        Coded coded;
        decoded(stream, 64, &coded);
        EXPECT_EQ(coded.error, code) << stream.size();
    }
}

TEST_F(IaaDeflateModel, OverflowIsToldAndNothingWrittenBeside) {
    const Block plain = make_block(Pattern::json, 4096, random_);
    Block packed(deflate_.bound(4096));
    packed.resize(deflate_.compress(plain, packed, 0, scratch_.span()));
    for (const std::size_t room : {std::size_t{0}, std::size_t{1}, std::size_t{4095}}) {
        Coded coded;
        decoded(packed, room, &coded);
        EXPECT_TRUE(coded.overflow) << room;
        const GuardedBuffer small(room / 8);
        EXPECT_TRUE(encode(fixed_codes(), plain, small.span(), true).overflow);
        EXPECT_TRUE(small.intact());
    }
}

TEST_F(IaaDeflateModel, DamageIsNeverMoreThanAnError) {
    const Block plain = make_block(Pattern::json, 4096, random_);
    Block packed(deflate_.bound(4096));
    packed.resize(deflate_.compress(plain, packed, 0, scratch_.span()));
    for (int round = 0; round < 2000; ++round) {
        Block damaged = packed;
        damaged[random_() % damaged.size()] ^= static_cast<std::byte>(1 + random_() % 255);
        damaged.resize(1 + random_() % damaged.size());
        Coded coded;
        decoded(damaged, plain.size(), &coded);
    }
}

}  // namespace
}  // namespace pnode::compress::iaa::model
