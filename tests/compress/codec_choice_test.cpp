// The list of codecs, and how people name one.
#include <gtest/gtest.h>

#include "compress/codec.h"

namespace pnode::compress {
namespace {

TEST(CodecRegistry, NumbersAndNamesAreWhatTheyAreForEver) {
    EXPECT_EQ(static_cast<int>(CodecId::none), 0);
    const std::pair<int, const char*> expected[] = {
        {1, "same-filled"}, {2, "lz4"}, {3, "zstd"}, {4, "deflate"}, {5, "device"}};
    ASSERT_EQ(codecs().size(), std::size(expected));
    for (const auto& [id, name] : expected) {
        const Codec* const codec = codec_by_id(static_cast<CodecId>(id));
        ASSERT_NE(codec, nullptr) << id;
        EXPECT_STREQ(codec->name, name);
        EXPECT_EQ(static_cast<int>(codec->id), id);
        EXPECT_EQ(codec_by_name(name), codec);
    }
}

TEST(CodecRegistry, UnknownIdsAndNamesAreNull) {
    for (int id = 0; id < 256; ++id) {
        if (id < 1 || id > 5) {
            EXPECT_EQ(codec_by_id(static_cast<CodecId>(id)), nullptr) << id;
        }
    }
    for (const char* name : {"", "lz", "lz44", "LZ4", "none", "zstd:3"})
        EXPECT_EQ(codec_by_name(name), nullptr) << name;
}

TEST(CodecRegistry, TablesAreConsistent) {
    for (const Codec* codec : codecs()) {
        EXPECT_LE(codec->level_min, codec->level_default);
        EXPECT_LE(codec->level_default, codec->level_max);
        EXPECT_EQ(codec->block_bytes_max, block_bytes_max);
        for (int level = codec->level_min; level <= codec->level_max; ++level)
            EXPECT_GE(codec->scratch_bytes(level), codec->decompress_scratch_bytes());
    }
}

struct GoodChoice {
    const char* text;
    CodecId id;
    int level;
};

TEST(CodecChoice, ReadsNamesAndLevels) {
    const GoodChoice good[] = {
        {"lz4", CodecId::lz4, 0},       {"zstd", CodecId::zstd, 3},       {"zstd:1", CodecId::zstd, 1},
        {"zstd:19", CodecId::zstd, 19}, {"zstd:-1", CodecId::zstd, -1},   {"zstd:-3", CodecId::zstd, -3},
        {"zstd:-7", CodecId::zstd, -7}, {"deflate", CodecId::deflate, 0},
    };
    for (const auto& [text, id, level] : good) {
        CodecChoice choice;
        ASSERT_TRUE(parse_codec_choice(text, &choice)) << text;
        EXPECT_EQ(choice.codec, codec_by_id(id)) << text;
        EXPECT_EQ(choice.level, level) << text;
    }
}

TEST(CodecChoice, AnAcceleratorWritesDeflate) {
    struct {
        const char* text;
        Offload offload;
        unsigned verify_pct;
        const char* name;
    } const good[] = {{"iaa", Offload::iaa, 100, "iaa"},
                      {"iaa:1", Offload::iaa, 1, "iaa"},
                      {"iaa:100", Offload::iaa, 100, "iaa"},
                      {"iaa:model", Offload::iaa_model, 100, "iaa:model"},
                      {"deflate", Offload::none, 100, "deflate"}};
    for (const auto& [text, offload, verify_pct, name] : good) {
        CodecChoice choice;
        ASSERT_TRUE(parse_codec_choice(text, &choice)) << text;
        EXPECT_EQ(choice.codec, codec_by_id(CodecId::deflate)) << text;
        EXPECT_EQ(choice.offload, offload) << text;
        EXPECT_EQ(choice.verify_pct, verify_pct) << text;
        EXPECT_STREQ(name_of(choice), name);
    }
}

TEST(CodecChoice, WhatStaysColdIsRecompressed) {
    struct {
        const char* text;
        CodecId id;
        int level, recompress_level;
        unsigned cpu_pct;
        const char* name;
    } const good[] = {{"auto", CodecId::lz4, 0, 14, 1, "auto"},
                      {"auto:25", CodecId::lz4, 0, 14, 25, "auto"},
                      {"auto:100", CodecId::lz4, 0, 14, 100, "auto"},
                      {"auto:5:6", CodecId::lz4, 0, 6, 5, "auto"},
                      {"zstd,dict", CodecId::zstd, 3, 3, 1, "zstd,dict"},
                      {"zstd:6,dict", CodecId::zstd, 6, 6, 1, "zstd,dict"},
                      {"zstd:6,dict:50", CodecId::zstd, 6, 6, 50, "zstd,dict"},
                      {"zstd:-3,dict", CodecId::zstd, -3, -3, 1, "zstd,dict"},
                      {"lz4,dict", CodecId::lz4, 0, 4, 1, "lz4,dict"},
                      {"lz4,dict:50", CodecId::lz4, 0, 4, 50, "lz4,dict"},
                      {"lz4", CodecId::lz4, 0, 0, 1, "lz4"}};
    for (const auto& [text, id, level, recompress_level, cpu_pct, name] : good) {
        CodecChoice choice;
        ASSERT_TRUE(parse_codec_choice(text, &choice)) << text;
        EXPECT_EQ(choice.codec, codec_by_id(id)) << text;
        EXPECT_EQ(choice.level, level) << text;
        EXPECT_EQ(choice.recompress_level, recompress_level) << text;
        EXPECT_EQ(choice.recompress_cpu_pct, cpu_pct) << text;
        const CodecChoice stronger = recompression_of(choice);
        EXPECT_EQ(stronger.level, recompress_level) << text;
        EXPECT_EQ(choice.block_pages, 1u) << text;
        for (const auto& [suffix, pages] : {std::pair(",16K", 4u), std::pair(",64K", 16u)}) {
            CodecChoice in_blocks;
            const std::string longer = std::string(text) + suffix;
            ASSERT_EQ(parse_codec_choice(longer, &in_blocks), recompress_level != 0) << longer;
            if (recompress_level == 0) continue;
            EXPECT_EQ(in_blocks.block_pages, pages) << longer;
            EXPECT_EQ(in_blocks.codec, choice.codec) << longer;
            EXPECT_EQ(in_blocks.recompress_cpu_pct, choice.recompress_cpu_pct) << longer;
        }
        EXPECT_EQ(stronger.codec != nullptr, recompress_level != 0) << text;
        EXPECT_STREQ(name_of(choice), name);
    }
}

TEST(CodecChoice, RefusesTheRestAndLeavesTheChoiceUntouched) {
    using namespace std::string_view_literals;
    const std::string_view bad[] = {
        "",
        ":",
        ":3",
        " lz4",
        "lz4 ",
        "LZ4",
        "lz4:",
        "lz4:0",
        "lz4:1",
        "lz",
        "lz4\0"sv,
        "gzip",
        "deflate:1",
        "deflat",
        "iaa:",
        "iaa:0",
        "iaa:101",
        "iaa:-1",
        "iaa:1x",
        "iaa:model:1",
        "iaax",
        "none",
        "same-filled",
        "zstd:",
        "zstd:0",
        "zstd:-0",
        "zstd:20",
        "zstd:-8",
        "zstd:+3",
        "zstd: 3",
        "zstd:3 ",
        "zstd:3x",
        "zstd:3:3",
        "zstd:3.5",
        "zstd:x",
        "zstd:-",
        "zstd:--3",
        "zstd:0x3",
        "zstd3",
        "zstd::3",
        "zstd=3",
        "zstd:3,lz4",
        "zstd:3,",
        "zstd:3,dict,dict",
        "zstd:3,dict:",
        "zstd:3,dict:0",
        "zstd:3,dictx",
        "zstd:3,di",
        "zstd:20,dict",
        "lz4,dict,dict",
        "lz4,dict:0",
        "auto,16K,16K",
        "auto,16K,64K",
        "auto,8K",
        "lz4,16K",
        ",16K",
        "same,dict",
        "auto:5,dict",
        "deflate,dict",
        "auto,dict",
        ",dict",
        "auto:",
        "auto:0",
        "auto:101",
        "auto:5x",
        "auto:5:",
        "auto:5:0",
        "auto:5:99",
        "auto::6",
        "auto:5:6:7",
        "autox",
        "zstd:3\0"sv,
        "zstd:99999999999999999999",
        "zstd:-99999999999999999999",
        "zstd:2147483648",
        "zstd:4294967299",
    };
    for (const std::string_view text : bad) {
        CodecChoice choice{codec_by_id(CodecId::lz4), 42};
        EXPECT_FALSE(parse_codec_choice(text, &choice)) << text;
        EXPECT_EQ(choice.codec, codec_by_id(CodecId::lz4)) << text;
        EXPECT_EQ(choice.level, 42) << text;
    }
}

}  // namespace
}  // namespace pnode::compress
