// One 64-bit word, repeated: what a block of zeros or of any other fill costs.
#include <cstring>

#include "compress/blob.h"
#include "compress/codec_tables.h"

namespace pnode::compress {
namespace {

constexpr std::size_t word_bytes = sizeof(std::uint64_t);

std::size_t one_word(std::size_t) {
    return word_bytes;
}

std::size_t compress(Bytes source, MutableBytes destination, int, MutableBytes) noexcept {
    std::uint64_t word = 0;
    if (source.size() > block_bytes_max || destination.size() < word_bytes) return 0;
    if (!is_same_filled(source, &word)) return 0;
    std::memcpy(destination.data(), &word, word_bytes);
    return word_bytes;
}

bool decompress(Bytes source, MutableBytes destination, MutableBytes) noexcept {
    if (source.size() != word_bytes || destination.size() % word_bytes != 0) return false;
    std::uint64_t word = 0;
    std::memcpy(&word, source.data(), word_bytes);
    for (std::size_t at = 0; at < destination.size(); at += word_bytes)
        std::memcpy(destination.data() + at, &word, word_bytes);
    return true;
}

}  // namespace

bool is_same_filled(Bytes contents, std::uint64_t* word) noexcept {
    if (contents.size() < word_bytes || contents.size() % word_bytes != 0) return false;
    // Equal to itself one word further on: every word equals its neighbour.
    if (std::memcmp(contents.data(), contents.data() + word_bytes, contents.size() - word_bytes) != 0)
        return false;
    std::memcpy(word, contents.data(), word_bytes);
    return true;
}

constinit const Codec same_filled_codec = {
    .id = CodecId::same_filled,
    .name = "same-filled",
    .level_min = 0,
    .level_max = 0,
    .level_default = 0,
    .block_bytes_max = block_bytes_max,
    .scratch_bytes = no_scratch,
    .decompress_scratch_bytes = no_decompress_scratch,
    .bound = one_word,
    .compress = compress,
    .decompress = decompress,
};

}  // namespace pnode::compress
