// Codecs: one const table per codec, no state but the scratch the caller lends.
//
// Thread rule: every function may be called by any thread at once, also on the fault path: nothing here
// allocates, throws, locks or makes a system call. Knows nothing of pages, heaps or nodes.
//
// Scratch: aligned to 64 bytes, used by one thread at a time, zero-filled once by the caller before its first
// use (fresh anonymous memory is), and from then on written by codecs only, though by any of them and at any
// level. Codecs keep what is dear to set up in it, so lend the same stretch again: a scratch that is new,
// moved, of another size or last used by another codec works and costs some 10 us more. It holds no secret
// that the blocks did not, and needs no teardown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace pnode::compress {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

// Stored in every blob: a number keeps its meaning for ever.
enum class CodecId : std::uint8_t {
    none = 0,
    same_filled = 1,
    lz4 = 2,
    zstd = 3,
    deflate = 4,
    device = 5,
    // From here on with a dictionary (dictionary.h).
    lz4_dictionary = 16,
    zstd_dictionary = 17
};

inline constexpr std::size_t block_bytes_max = 65536;
inline constexpr std::size_t scratch_alignment = 64;

struct Codec {
    CodecId id;
    const char* name;
    int level_min;  // equal to level_max where the codec has no levels
    int level_max;
    int level_default;
    std::size_t block_bytes_max;  // largest input, 64 KiB for now
    // Scratch that serves both directions, in bytes.
    std::size_t (*scratch_bytes)(int level);
    // Scratch that serves decompress() alone, whatever the level was.
    std::size_t (*decompress_scratch_bytes)();
    // Output that always suffices for `source_bytes` of input.
    std::size_t (*bound)(std::size_t source_bytes);
    // Bytes written to `destination`, or 0: it did not fit (never an error otherwise). `destination` may be
    // smaller than bound(): that is how a caller says what saving is worth storing.
    std::size_t (*compress)(Bytes source, MutableBytes destination, int level, MutableBytes scratch) noexcept;
    // True when exactly destination.size() bytes were decoded from all of `source`. Safe on any input. On
    // false the destination is unspecified.
    bool (*decompress)(Bytes source, MutableBytes destination, MutableBytes scratch) noexcept;
    bool keeps_size = false;  // saves nothing by itself: what is behind it does
};

// nullptr for an unknown id or name.
const Codec* codec_by_id(CodecId id) noexcept;
const Codec* codec_by_name(std::string_view name) noexcept;
std::span<const Codec* const> codecs() noexcept;

class Dictionary;

// Who does a codec's work: software, or an accelerator and software for the rest, in the same format.
enum class Offload : std::uint8_t { none, iaa, iaa_model };

// What a heap is told to use: "lz4", "zstd", "zstd:5", "zstd:-3", "deflate"; "iaa" is deflate by an
// accelerator, "iaa:10" with a tenth of what it compresses verified instead of all, "iaa:model" by a model of
// one. "auto" is lz4, and what stays cold recompressed by zstd:6 for 1 % of one CPU, "auto:5" for 5 %;
// "zstd:5,dict" is zstd:5, and the same at that level ("zstd:5,dict:PERCENT"); "lz4,dict" is lz4, and lz4
// that takes its time. With ",16K" behind, what is recompressed is so in blocks of 16 KiB; with ",64K" the
// coldest in blocks of 64 KiB.
struct CodecChoice {
    const Codec* codec = nullptr;
    int level = 0;
    Offload offload = Offload::none;
    unsigned verify_pct = 100;
    const Dictionary* dictionary = nullptr;  // of that level; used where the codec can (dictionary.h)
    // What has been cold for long is made smaller in the background: by this codec at this level, with a
    // dictionary trained on the heap's own pages, for this share of one CPU. 0: it stays as it is.
    const Codec* recompress_codec = nullptr;
    int recompress_level = 0;
    unsigned recompress_cpu_pct = 1;
    // Neighbours that are equally cold are compressed together then: at most so many pages, 1, 4 or 16.
    unsigned block_pages = 1;
};
// How what was cold for long is compressed; to be given a dictionary.
CodecChoice recompression_of(const CodecChoice& choice) noexcept;
// The level to train and to make a dictionary for it with (dictionary.h).
int dictionary_level(const CodecChoice& choice) noexcept;
// "lz4", "iaa", "iaa:model", "auto", "zstd,dict": without level and share. Static text.
const char* name_of(const CodecChoice& choice) noexcept;
// False on an unknown name, a level out of range or where there are none, level 0 (zstd means "default" by
// it: say no level), or anything left over; `choice` is then untouched. same_filled is not a choice: it is
// tried first for every block.
inline constexpr const char* codec_choice_grammar =
    "lz4, lz4,dict, zstd, zstd:LEVEL, zstd:LEVEL,dict, auto, auto:PERCENT[:LEVEL], deflate, iaa, "
    "iaa:PERCENT, "
    "iaa:model, device; dict and auto also ,16K, ,64K";
bool parse_codec_choice(std::string_view text, CodecChoice* choice) noexcept;

}  // namespace pnode::compress
