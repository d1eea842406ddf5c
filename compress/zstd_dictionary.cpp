// zstd with a dictionary: the frames of zstd.cpp, their matches and tables in the dictionary.
//
// The dictionary's own prepared tables are trusted by the library: they lie in the runtime's private memory.
// Its content is not: matches are checked against its length, and wrong bytes fail the block's hash.
#include <algorithm>

#include "compress/codec_tables.h"
#include "compress/scratch_label.h"
#include "compress/zstd_contexts.h"

namespace pnode::compress {
namespace {

constexpr std::uint64_t encoder_tag = 0x7064'9a1e'c0de'0e03;
constexpr int window_log = 16;

// The encoder's tables are sized like the dictionary's; zstd adjusts them to the block, downwards. What it
// wants for its default level is a floor, because a prepared dictionary names no level.
std::size_t encoder_bytes(int level) {
    std::size_t bytes = ZSTD_estimateCCtxSize_usingCParams(zstd_dictionary_parameters(level));
    for (const int each : {level, ZSTD_defaultCLevel()})
        for (const std::size_t block_bytes : {std::size_t{16384}, block_bytes_max})
            bytes = std::max(bytes, ZSTD_estimateCCtxSize_usingCParams(
                                        ZSTD_getCParams(each, block_bytes, block_bytes_max)));
    return (bytes + scratch_alignment - 1) / scratch_alignment * scratch_alignment;
}

std::size_t scratch_bytes(int level) {
    return zstd_decoder_scratch_bytes() + sizeof(ScratchLabel) + encoder_bytes(level);
}

std::size_t compress(Bytes source, MutableBytes destination, const Dictionary& dictionary,
                     MutableBytes scratch) noexcept {
    if (source.size() > block_bytes_max || dictionary.zstd_encoder() == nullptr) return 0;
    const int level = dictionary.zstd_level();
    ZSTD_CCtx* const encoder = zstd_encoder_in(scratch, level, encoder_tag, encoder_bytes(level));
    if (encoder == nullptr) return 0;
    // A block that did not fit leaves the encoder in the middle of it, where it takes no dictionary.
    ZSTD_CCtx_reset(encoder, ZSTD_reset_session_only);
    if (ZSTD_isError(ZSTD_CCtx_refCDict(encoder, dictionary.zstd_encoder())) != 0) return 0;
    const std::size_t written =
        ZSTD_compress2(encoder, destination.data(), destination.size(), source.data(), source.size());
    return ZSTD_isError(written) != 0 ? 0 : written;
}

bool decompress(Bytes source, MutableBytes destination, const Dictionary& dictionary,
                MutableBytes scratch) noexcept {
    if (!is_zstd_frame(source) || dictionary.zstd_decoder() == nullptr) return false;
    ZSTD_DCtx* const decoder = zstd_decoder_in(scratch);
    if (decoder == nullptr) return false;
    return ZSTD_decompress_usingDDict(decoder, destination.data(), destination.size(), source.data(),
                                      source.size(), dictionary.zstd_decoder()) == destination.size();
}

}  // namespace

ZSTD_compressionParameters zstd_dictionary_parameters(int level) noexcept {
    ZSTD_compressionParameters parameters = ZSTD_getCParams(level, block_bytes_max, block_bytes_max);
    parameters.windowLog = std::max<unsigned>(parameters.windowLog, window_log + 1);  // block and dictionary
    return parameters;
}

constinit const DictionaryCodec zstd_dictionary_codec = {
    .id = CodecId::zstd_dictionary,
    .base = &zstd_codec,
    .scratch_bytes = scratch_bytes,
    .compress = compress,
    .decompress = decompress,
};

}  // namespace pnode::compress
