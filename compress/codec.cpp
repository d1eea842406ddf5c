#include "compress/codec.h"

#include <charconv>

#include "compress/codec_tables.h"

namespace pnode::compress {
namespace {

// Every codec there is, in the order in which users see them.
constexpr const Codec* all_codecs[] = {&same_filled_codec, &lz4_codec, &zstd_codec, &deflate_codec,
                                       &device_codec};

bool parse_level(std::string_view text, const Codec& codec, int* level) noexcept {
    int value = 0;
    const char* const end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc{} || stopped != end) return false;
    if (value == 0 || value < codec.level_min || value > codec.level_max) return false;
    *level = value;
    return true;
}

// ":10": 1 to 100.
bool parse_percent(std::string_view detail, unsigned* percent) noexcept {
    if (!detail.starts_with(':')) return false;
    const char* const end = detail.data() + detail.size();
    const auto [stopped, error] = std::from_chars(detail.data() + 1, end, *percent);
    return error == std::errc{} && stopped == end && *percent >= 1 && *percent <= 100;
}

bool parse_iaa(std::string_view detail, CodecChoice* choice) noexcept {
    CodecChoice found = {&deflate_codec, deflate_codec.level_default, Offload::iaa, 100};
    if (detail == ":model") {
        found.offload = Offload::iaa_model;
    } else if (!detail.empty() && !parse_percent(detail, &found.verify_pct)) {
        return false;
    }
    *choice = found;
    return true;
}

// Fifteen times the time of zstd's default, for a page a twelfth smaller (docs/performance.md, Density): what
// searches for the cheapest matches. Decoding takes no longer.
constexpr int auto_level = 14;

// "", ":10" or ":10:6": the share of one CPU, and the level.
bool parse_auto(std::string_view detail, CodecChoice* choice) noexcept {
    CodecChoice found = {&lz4_codec, lz4_codec.level_default};
    found.recompress_codec = &zstd_codec;
    found.recompress_level = auto_level;
    if (const std::size_t colon = detail.find(':', 1); colon != std::string_view::npos) {
        if (!parse_level(detail.substr(colon + 1), zstd_codec, &found.recompress_level)) return false;
        detail = detail.substr(0, colon);
    }
    if (!detail.empty() && !parse_percent(detail, &found.recompress_cpu_pct)) return false;
    *choice = found;
    return true;
}

constexpr struct {
    std::string_view suffix;
    unsigned pages;
} block_suffixes[] = {{",16K", 4}, {",64K", 16}};

}  // namespace

const char* name_of(const CodecChoice& choice) noexcept {
    switch (choice.offload) {
        case Offload::iaa:
            return "iaa";
        case Offload::iaa_model:
            return "iaa:model";
        case Offload::none:
            break;
    }
    if (choice.recompress_level == 0) return choice.codec->name;
    if (choice.codec == &zstd_codec) return "zstd,dict";
    return choice.recompress_codec == &zstd_codec ? "auto" : "lz4,dict";
}

CodecChoice recompression_of(const CodecChoice& choice) noexcept {
    return {.codec = choice.recompress_codec, .level = choice.recompress_level};
}

int dictionary_level(const CodecChoice& choice) noexcept {
    return choice.codec == &zstd_codec ? choice.level : Dictionary::for_lz4_hc;
}

std::span<const Codec* const> codecs() noexcept {
    return all_codecs;
}

const Codec* codec_by_id(CodecId id) noexcept {
    for (const Codec* codec : all_codecs)
        if (codec->id == id) return codec;
    return nullptr;
}

const Codec* codec_by_name(std::string_view name) noexcept {
    for (const Codec* codec : all_codecs)
        if (name == codec->name) return codec;
    return nullptr;
}

bool parse_codec_choice(std::string_view text, CodecChoice* choice) noexcept {
    for (const auto& [suffix, pages] : block_suffixes) {
        if (!text.ends_with(suffix)) continue;
        CodecChoice found;
        if (!parse_codec_choice(text.substr(0, text.size() - suffix.size()), &found)) return false;
        if (found.recompress_level == 0 || found.block_pages != 1) return false;
        *choice = found;
        choice->block_pages = pages;
        return true;
    }
    const std::size_t colon = text.find(':');
    if (text.substr(0, colon) == "iaa") return parse_iaa(text.substr(3), choice);
    if (text.substr(0, colon) == "auto") return parse_auto(text.substr(4), choice);
    constexpr std::string_view with_dictionary = ",dict";
    if (const std::size_t comma = text.find(','); comma != std::string_view::npos) {
        CodecChoice found;
        if (!parse_codec_choice(text.substr(0, comma), &found)) return false;
        const bool is_lz4 = found.codec == &lz4_codec && found.recompress_level == 0;
        if (!is_lz4 && found.codec != &zstd_codec) return false;
        if (!text.substr(comma).starts_with(with_dictionary)) return false;
        const std::string_view detail = text.substr(comma + with_dictionary.size());
        if (!detail.empty() && !parse_percent(detail, &found.recompress_cpu_pct)) return false;
        found.recompress_codec = is_lz4 ? &lz4_hc_codec : &zstd_codec;
        found.recompress_level = is_lz4 ? lz4_hc_codec.level_default : found.level;
        *choice = found;
        return true;
    }
    const Codec* const codec = codec_by_name(text.substr(0, colon));
    if (codec == nullptr || codec->id == CodecId::same_filled) return false;
    int level = codec->level_default;
    if (colon != std::string_view::npos) {
        if (codec->level_min == codec->level_max) return false;
        if (!parse_level(text.substr(colon + 1), *codec, &level)) return false;
    }
    *choice = {codec, level};
    return true;
}

}  // namespace pnode::compress
