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

}  // namespace

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
    const std::size_t colon = text.find(':');
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
