// zstd frames with what a blob's header says already left out: no magic number, content size or checksum. Two
// bytes are left.
//
// Scratch, so that one stretch can serve both directions and keep both contexts:
//
//     | label | decoder (96 KB) | label | encoder (0.3 to a few MB by level) |
//
// The window is the block, 64 KiB at most: that is what keeps the encoder small. ZSTD_initStatic*() contexts
// never allocate: where memory lacks they fail instead.
#include <algorithm>

#include "compress/codec_tables.h"
#include "compress/scratch_label.h"
#include "compress/zstd_contexts.h"

namespace pnode::compress {
namespace {

constexpr std::uint64_t decoder_tag = 0x7064'9a1e'c0de'0d01;
constexpr std::uint64_t encoder_tag = 0x7064'9a1e'c0de'0e02;
constexpr int window_log_max = 16;
static_assert(std::size_t{1} << window_log_max == block_bytes_max);

// The frame header descriptor of every frame written here: no single segment, content size, checksum or
// dictionary. Anything else is refused, among it what the library would take for a skippable frame or one of
// its old formats.
constexpr std::byte frame_descriptor{0};

constexpr std::size_t aligned(std::size_t bytes) {
    return (bytes + scratch_alignment - 1) / scratch_alignment * scratch_alignment;
}

std::size_t decoder_bytes() {
    return aligned(ZSTD_estimateDCtxSize());
}
std::size_t decompress_scratch_bytes() {
    return sizeof(ScratchLabel) + decoder_bytes();
}

// zstd has a table of parameters for inputs up to 16 KiB and another for those up to 128 KiB; in each the
// largest block needs most.
std::size_t encoder_bytes(int level) {
    std::size_t bytes = 0;
    for (const std::size_t block_bytes : {std::size_t{16384}, block_bytes_max})
        bytes = std::max(bytes, ZSTD_estimateCCtxSize_usingCParams(ZSTD_getCParams(level, block_bytes, 0)));
    return aligned(bytes);
}

std::size_t scratch_bytes(int level) {
    return decompress_scratch_bytes() + sizeof(ScratchLabel) + encoder_bytes(level);
}

bool configure(ZSTD_CCtx* encoder, int level) {
    const struct {
        ZSTD_cParameter parameter;
        int value;
    } settings[] = {
        {ZSTD_c_compressionLevel, level},
        {ZSTD_c_windowLog, window_log_max},
        {ZSTD_c_format, ZSTD_f_zstd1_magicless},
        {ZSTD_c_contentSizeFlag, 0},
        {ZSTD_c_checksumFlag, 0},
        {ZSTD_c_dictIDFlag, 0},
    };
    for (const auto& [parameter, value] : settings)
        if (ZSTD_isError(ZSTD_CCtx_setParameter(encoder, parameter, value)) != 0) return false;
    return true;
}

}  // namespace

std::size_t zstd_decoder_scratch_bytes() noexcept {
    return decompress_scratch_bytes();
}

bool is_zstd_frame(Bytes source) noexcept {
    return !source.empty() && source.front() == frame_descriptor;
}

ZSTD_CCtx* zstd_encoder_in(MutableBytes scratch, int level, std::uint64_t tag, std::size_t bytes) noexcept {
    const std::size_t before = decompress_scratch_bytes() + sizeof(ScratchLabel);
    if (scratch.size() <= before) return nullptr;
    ScratchLabel* const label = scratch_label(scratch.subspan(decompress_scratch_bytes()));
    const MutableBytes memory = scratch.subspan(before);
    if (label->names(tag, memory.size(), level)) return static_cast<ZSTD_CCtx*>(label->context);

    label->clear();
    if (memory.size() < bytes) return nullptr;
    ZSTD_CCtx* const encoder = ZSTD_initStaticCCtx(memory.data(), memory.size());
    if (encoder == nullptr || !configure(encoder, level)) return nullptr;
    label->set(tag, encoder, memory.size(), level);
    return encoder;
}

ZSTD_DCtx* zstd_decoder_in(MutableBytes scratch) noexcept {
    if (scratch.size() < decompress_scratch_bytes()) return nullptr;
    ScratchLabel* const label = scratch_label(scratch);
    if (label->names(decoder_tag, decoder_bytes(), 0)) return static_cast<ZSTD_DCtx*>(label->context);

    label->clear();
    ZSTD_DCtx* const decoder = ZSTD_initStaticDCtx(scratch.data() + sizeof(ScratchLabel), decoder_bytes());
    if (decoder == nullptr) return nullptr;
    if (ZSTD_isError(ZSTD_DCtx_setParameter(decoder, ZSTD_d_format, ZSTD_f_zstd1_magicless)) != 0)
        return nullptr;
    label->set(decoder_tag, decoder, decoder_bytes(), 0);
    return decoder;
}

namespace {

std::size_t compress(Bytes source, MutableBytes destination, int level, MutableBytes scratch) noexcept {
    if (source.size() > block_bytes_max) return 0;
    ZSTD_CCtx* const encoder = zstd_encoder_in(scratch, level, encoder_tag, encoder_bytes(level));
    if (encoder == nullptr) return 0;
    const std::size_t written =
        ZSTD_compress2(encoder, destination.data(), destination.size(), source.data(), source.size());
    return ZSTD_isError(written) != 0 ? 0 : written;
}

bool decompress(Bytes source, MutableBytes destination, MutableBytes scratch) noexcept {
    if (!is_zstd_frame(source)) return false;
    ZSTD_DCtx* const decoder = zstd_decoder_in(scratch);
    if (decoder == nullptr) return false;
    // An error code is far above any size, so this is a comparison with success.
    return ZSTD_decompressDCtx(decoder, destination.data(), destination.size(), source.data(),
                               source.size()) == destination.size();
}

}  // namespace

constinit const Codec zstd_codec = {
    .id = CodecId::zstd,
    .name = "zstd",
    .level_min = -7,  // below, lz4 does better at less cost
    .level_max = 19,
    .level_default = 3,
    .block_bytes_max = block_bytes_max,
    .scratch_bytes = scratch_bytes,
    .decompress_scratch_bytes = decompress_scratch_bytes,
    .bound = ZSTD_compressBound,
    .compress = compress,
    .decompress = decompress,
};

}  // namespace pnode::compress
