// What every codec must do, run against every codec at every level.
#include "tests/compress/blocks.h"

namespace pnode::compress::testing {
namespace {

struct Case {
    const Codec* codec;
    int level;
};

std::vector<Case> all_cases() {
    std::vector<Case> cases;
    for (const Codec* codec : codecs())
        for (int level = codec->level_min; level <= codec->level_max; ++level)
            if (level != 0 || codec->level_min == codec->level_max) cases.push_back({codec, level});
    return cases;
}

std::string case_name(const ::testing::TestParamInfo<Case>& test) {
    std::string name = std::string(test.param.codec->name) + "_" + std::to_string(test.param.level);
    std::ranges::replace(name, '-', 'm');
    return name;
}

class CodecCompliance : public ::testing::TestWithParam<Case> {
  protected:
    // Exactly what the codec asked for, so that a guard tells when it takes more.
    GuardedBuffer scratch_{GetParam().codec->scratch_bytes(GetParam().level)};
    Random random_{test_seed()};

    std::size_t compress(const Block& block, MutableBytes destination) {
        return GetParam().codec->compress(block, destination, GetParam().level, scratch_.span());
    }
    void expect_decodes_to(Bytes packed, const Block& block) {
        const GuardedBuffer decoded(block.size());
        const GuardedBuffer decode_scratch(GetParam().codec->decompress_scratch_bytes());
        EXPECT_TRUE(GetParam().codec->decompress(packed, decoded.span(), decode_scratch.span()));
        EXPECT_TRUE(std::ranges::equal(decoded.span(), block));
        EXPECT_TRUE(decoded.intact());
        EXPECT_TRUE(decode_scratch.intact());
    }
    // same-filled is the one codec that not every block fits.
    bool must_fit(Pattern pattern) const {
        return GetParam().codec->id != CodecId::same_filled || pattern == Pattern::zeros ||
               pattern == Pattern::word;
    }
};

TEST_P(CodecCompliance, RoundTripsEverySizeOfEveryPatternWithinItsBound) {
    for (const std::size_t bytes : block_sizes) {
        for (const Pattern pattern : all_patterns) {
            SCOPED_TRACE(::testing::Message() << name_of(pattern) << ' ' << bytes);
            const Block block = make_block(pattern, bytes, random_);
            const GuardedBuffer packed(GetParam().codec->bound(bytes));
            const std::size_t packed_bytes = compress(block, packed.span());
            ASSERT_TRUE(packed.intact());
            ASSERT_EQ(packed_bytes != 0, must_fit(pattern));
            ASSERT_LE(packed_bytes, packed.span().size());
            if (packed_bytes != 0) expect_decodes_to(packed.span().first(packed_bytes), block);
        }
    }
    EXPECT_TRUE(scratch_.intact());
}

TEST_P(CodecCompliance, RandomSizesRoundTripInLentScratchAgainAndAgain) {
    // More than the 128 small blocks in a row after which zstd would like a smaller context.
    for (int round = 0; round < 300; ++round) {
        const std::size_t units = round < 20 ? 1 + random_() % 1024 : 1 + random_() % 8;
        const Block block = make_block(Pattern::json, units * block_bytes_min, random_);
        const GuardedBuffer packed(GetParam().codec->bound(block.size()));
        const std::size_t packed_bytes = compress(block, packed.span());
        ASSERT_EQ(packed_bytes != 0, must_fit(Pattern::json)) << round;
        if (packed_bytes != 0) expect_decodes_to(packed.span().first(packed_bytes), block);
    }
    EXPECT_TRUE(scratch_.intact());
}

TEST_P(CodecCompliance, TheSameBlockGivesTheSameBytesWhateverCameBefore) {
    const Block block = make_block(Pattern::text, 4096, random_);
    const Block other = make_block(Pattern::json, 65536, random_);
    const std::size_t bound = GetParam().codec->bound(other.size());
    const GuardedBuffer first(bound), again(bound);
    const std::size_t first_bytes = compress(block, first.span());
    compress(other, again.span());
    ASSERT_EQ(compress(block, again.span()), first_bytes);
    EXPECT_TRUE(std::ranges::equal(first.span().first(first_bytes), again.span().first(first_bytes)));
}

INSTANTIATE_TEST_SUITE_P(EveryCodec, CodecCompliance, ::testing::ValuesIn(all_cases()), case_name);

// The rest does not depend on the level much: one case for each way through the code.
class CodecLimits : public CodecCompliance {};

TEST_P(CodecLimits, EverySmallerDestinationIsRespected) {
    const std::pair<std::size_t, std::size_t> sizes_and_steps[] = {{64, 1}, {4096, 1}, {65536, 509}};
    for (const auto& [bytes, step] : sizes_and_steps) {
        for (const Pattern pattern : {Pattern::word, Pattern::json, Pattern::near_incompressible}) {
            SCOPED_TRACE(::testing::Message() << name_of(pattern) << ' ' << bytes);
            const Block block = make_block(pattern, bytes, random_);
            const GuardedBuffer whole(GetParam().codec->bound(bytes));
            const std::size_t whole_bytes = compress(block, whole.span());
            for (std::size_t room = 0; room < whole_bytes; room += step) {
                const GuardedBuffer packed(room);
                const std::size_t packed_bytes = compress(block, packed.span());
                ASSERT_TRUE(packed.intact()) << room;
                ASSERT_LE(packed_bytes, room);
                // A codec may find a smaller form when pressed; then it must be a true one.
                if (packed_bytes != 0) expect_decodes_to(packed.span().first(packed_bytes), block);
            }
        }
    }
}

TEST_P(CodecLimits, RefusesABlockThatIsTooLarge) {
    const Block block(block_bytes_max + 64, std::byte{7});
    const GuardedBuffer packed(2 * block.size());
    EXPECT_EQ(compress(block, packed.span()), 0u);
}

class CodecScratch : public CodecCompliance {};

TEST_P(CodecScratch, ThatIsTooSmallIsARefusalAndLeftAlone) {
    const Codec& codec = *GetParam().codec;
    const std::size_t needed = codec.scratch_bytes(GetParam().level);
    const Block block = make_block(Pattern::json, 4096, random_);
    const GuardedBuffer packed(codec.bound(block.size()));
    const std::size_t packed_bytes = compress(block, packed.span());
    ASSERT_NE(packed_bytes, 0u);
    for (const std::size_t lent : {std::size_t{0}, std::size_t{64}, needed - 64}) {
        const GuardedBuffer small(lent), room(codec.bound(block.size()));
        EXPECT_EQ(codec.compress(block, room.span(), GetParam().level, small.span()), 0u) << lent;
        EXPECT_TRUE(small.intact());
    }
    const std::size_t decode_needed = codec.decompress_scratch_bytes();
    if (decode_needed == 0) return;
    const GuardedBuffer small(decode_needed - 64), decoded(block.size());
    EXPECT_FALSE(codec.decompress(packed.span().first(packed_bytes), decoded.span(), small.span()));
    EXPECT_TRUE(small.intact());
}

TEST_P(CodecLimits, DecodingRefusesEveryOtherSizeAndEveryTruncation) {
    const Codec& codec = *GetParam().codec;
    const Block block = make_block(
        GetParam().codec->id == CodecId::same_filled ? Pattern::word : Pattern::json, 4096, random_);
    const GuardedBuffer packed(codec.bound(block.size()));
    const std::size_t packed_bytes = compress(block, packed.span());
    ASSERT_NE(packed_bytes, 0u);
    const MutableBytes scratch = scratch_.span();
    for (const std::size_t bytes : {std::size_t{64}, std::size_t{4032}, std::size_t{4160}, block_bytes_max}) {
        if (codec.id == CodecId::same_filled) break;  // a word fills any size
        const GuardedBuffer decoded(bytes);
        EXPECT_FALSE(codec.decompress(packed.span().first(packed_bytes), decoded.span(), scratch)) << bytes;
        EXPECT_TRUE(decoded.intact());
    }
    for (std::size_t bytes = 0; bytes < packed_bytes; ++bytes) {
        const Block part(packed.span().begin(), packed.span().begin() + static_cast<std::ptrdiff_t>(bytes));
        const GuardedBuffer decoded(block.size());
        EXPECT_FALSE(codec.decompress(part, decoded.span(), scratch)) << bytes;
        EXPECT_TRUE(decoded.intact());
    }
    expect_decodes_to(packed.span().first(packed_bytes), block);  // a failure leaves nothing behind
}

constexpr const char* choices[] = {"lz4", "zstd:-3", "zstd:3", "zstd:19", "deflate"};

std::vector<Case> cases_with_scratch() {
    std::vector<Case> cases;
    for (const char* text : choices) cases.push_back({choice_of(text).codec, choice_of(text).level});
    return cases;
}

std::vector<Case> cases_with_same_filled() {
    std::vector<Case> cases = cases_with_scratch();
    cases.push_back({codec_by_id(CodecId::same_filled), 0});
    return cases;
}

INSTANTIATE_TEST_SUITE_P(OneLevelEach, CodecLimits, ::testing::ValuesIn(cases_with_same_filled()), case_name);
INSTANTIATE_TEST_SUITE_P(OneLevelEach, CodecScratch, ::testing::ValuesIn(cases_with_scratch()), case_name);

// One stretch, lent to every codec at every level in turn, moved now and then: labels must tell what is still
// there.
TEST(Scratch, ServesAllCodecsInTurnAndSurvivesBeingMoved) {
    Random random(test_seed());
    const std::vector<Case> cases = all_cases();
    std::size_t bytes = 0;
    for (const auto& [codec, level] : cases) bytes = std::max(bytes, codec->scratch_bytes(level));
    const GuardedBuffer homes[] = {GuardedBuffer(bytes), GuardedBuffer(bytes)};
    std::size_t home = 0;
    for (int round = 0; round < 1000; ++round) {
        if (random() % 16 == 0) {
            std::ranges::copy(homes[home].span(), homes[1 - home].span().begin());
            std::ranges::fill(homes[home].span(), std::byte{0});  // what still points here must show
            home = 1 - home;
        }
        const auto& [codec, level] = cases[random() % cases.size()];
        const Block block =
            make_block(all_patterns[random() % std::size(all_patterns)], (1 + random() % 128) * 64, random);
        const GuardedBuffer packed(codec->bound(block.size())), decoded(block.size());
        const std::size_t packed_bytes = codec->compress(block, packed.span(), level, homes[home].span());
        if (packed_bytes == 0) {
            ASSERT_EQ(codec->id, CodecId::same_filled);
            continue;
        }
        ASSERT_TRUE(codec->decompress(packed.span().first(packed_bytes), decoded.span(), homes[home].span()));
        ASSERT_TRUE(std::ranges::equal(decoded.span(), block))
            << codec->name << ':' << level << " in round " << round;
    }
    EXPECT_TRUE(homes[0].intact() && homes[1].intact());
}

TEST(Zstd, LevelsInOneScratchDoNotMix) {
    Random random(test_seed());
    const Codec& zstd = *codec_by_id(CodecId::zstd);
    const Block block = make_block(Pattern::json, 65536, random);
    const GuardedBuffer shared(zstd.scratch_bytes(19)), fresh(zstd.scratch_bytes(19));
    Block fast(zstd.bound(block.size())), strong(fast.size()), alone(fast.size());
    fast.resize(zstd.compress(block, fast, 1, shared.span()));
    strong.resize(zstd.compress(block, strong, 19, shared.span()));
    alone.resize(zstd.compress(block, alone, 19, fresh.span()));
    EXPECT_EQ(strong, alone);
    EXPECT_NE(strong, fast);
}

TEST(Zstd, FramesOfOtherKindsAreRefused) {
    Random random(test_seed());
    const CodecChoice choice = choice_of("zstd");
    const Block block = make_block(Pattern::json, 4096, random);
    const GuardedBuffer scratch(choice.codec->scratch_bytes(choice.level)), decoded(block.size());
    Block packed(choice.codec->bound(block.size()));
    packed.resize(choice.codec->compress(block, packed, choice.level, scratch.span()));
    ASSERT_TRUE(choice.codec->decompress(packed, decoded.span(), scratch.span()));
    // The same data with its size in the header: descriptor 0x40, the window, 4096 - 256 in two bytes.
    Block sized = {std::byte{0x40}, packed[1], std::byte{0x00}, std::byte{0x0f}};
    sized.insert(sized.end(), packed.begin() + 2, packed.end());
    EXPECT_FALSE(choice.codec->decompress(sized, decoded.span(), scratch.span()));
}

TEST(SameFilled, ToldFromBlocksThatDifferInOneByteAnywhere) {
    Block block(4096, std::byte{0x5a});
    std::uint64_t word = 0;
    ASSERT_TRUE(is_same_filled(block, &word));
    EXPECT_EQ(word, 0x5a5a5a5a5a5a5a5aU);
    for (std::byte& odd : block) {
        odd ^= std::byte{1};
        EXPECT_FALSE(is_same_filled(block, &word));
        odd ^= std::byte{1};
    }
    EXPECT_TRUE(is_same_filled(Bytes(block).first(8), &word));
    EXPECT_FALSE(is_same_filled(Bytes(block).first(0), &word));
    EXPECT_FALSE(is_same_filled(Bytes(block).first(12), &word));
}

}  // namespace
}  // namespace pnode::compress::testing
