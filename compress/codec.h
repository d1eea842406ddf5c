// Codecs: one const table per codec, no state but the scratch the caller lends.
//
// Thread rule: every function may be called by any thread at once, also on the fault path: nothing here
// allocates, throws, locks or makes a system call. Knows nothing of pages, heaps or nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace pnode::compress {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

// Stored in every blob: a number keeps its meaning for ever.
enum class CodecId : std::uint8_t { none = 0, same_filled = 1, lz4 = 2, zstd = 3 };

struct Codec {
    CodecId id;
    const char* name;
    int level_min;      // equal to level_max where the codec has no levels
    int level_max;
    int level_default;
    std::size_t block_bytes_max;  // largest input, 64 KiB for now
    // Scratch either direction needs, in bytes; the caller aligns it to 64.
    std::size_t (*scratch_bytes)(int level);
    // Output that always suffices for `source_bytes` of input.
    std::size_t (*bound)(std::size_t source_bytes);
    // Bytes written to `destination`, or 0: it did not fit (never an error otherwise). `destination` may be smaller than
    // bound(): that is how a caller says what saving is worth storing.
    std::size_t (*compress)(Bytes source, MutableBytes destination, int level, MutableBytes scratch) noexcept;
    // True when exactly destination.size() bytes were decoded from all of `source`. Safe on any input.
    bool (*decompress)(Bytes source, MutableBytes destination, MutableBytes scratch) noexcept;
};

// nullptr for an unknown id or name.
const Codec* codec_by_id(CodecId id) noexcept;
const Codec* codec_by_name(std::string_view name) noexcept;
std::span<const Codec* const> codecs() noexcept;

// What a heap is told to use: "lz4", "zstd", "zstd:5".
struct CodecChoice {
    const Codec* codec = nullptr;
    int level = 0;
};
// False on an unknown name, a level out of range or where there are none, or anything left over; `choice` is then untouched.
// same_filled is not a choice: it is tried first for every block.
bool parse_codec_choice(std::string_view text, CodecChoice* choice) noexcept;

}  // namespace pnode::compress
