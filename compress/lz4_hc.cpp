// LZ4's block format by who takes his time: matches are searched in chains, for eight times as long as
// lz4.cpp takes. What comes out is a twelfth smaller for a page alone and a fifth with a dictionary, and is
// decoded by lz4 as quickly as any. For recompression.
#define LZ4_HC_STATIC_LINKING_ONLY  // LZ4_attach_HC_dictionary
#include <lz4hc.h>

#include <algorithm>

#include "compress/codec_tables.h"
#include "compress/scratch_label.h"

namespace pnode::compress {
namespace {

constexpr std::uint64_t encoder_tag = 0x7064'9a1e'c0de'0e04;

std::size_t scratch_bytes(int) {
    return sizeof(ScratchLabel) + sizeof(LZ4_streamHC_t);
}

// Cleared once; later blocks overwrite what they need of it.
LZ4_streamHC_t* encoder_in(MutableBytes scratch, int level) noexcept {
    if (scratch.size() < scratch_bytes(level)) return nullptr;
    ScratchLabel* const label = scratch_label(scratch);
    if (label->names(encoder_tag, sizeof(LZ4_streamHC_t), level)) {
        auto* const encoder = static_cast<LZ4_streamHC_t*>(label->context);
        LZ4_resetStreamHC_fast(encoder, level);
        return encoder;
    }
    label->clear();
    LZ4_streamHC_t* const encoder =
        LZ4_initStreamHC(scratch.data() + sizeof(ScratchLabel), sizeof(LZ4_streamHC_t));
    if (encoder == nullptr) return nullptr;
    LZ4_setCompressionLevel(encoder, level);
    label->set(encoder_tag, encoder, sizeof(LZ4_streamHC_t), level);
    return encoder;
}

std::size_t compress_with(LZ4_streamHC_t* encoder, Bytes source, MutableBytes destination) noexcept {
    const int room = static_cast<int>(std::min(destination.size(), lz4_codec.bound(block_bytes_max)));
    const int written = LZ4_compress_HC_continue(encoder, reinterpret_cast<const char*>(source.data()),
                                                 reinterpret_cast<char*>(destination.data()),
                                                 static_cast<int>(source.size()), room);
    return written > 0 ? static_cast<std::size_t>(written) : 0;
}

std::size_t compress(Bytes source, MutableBytes destination, int level, MutableBytes scratch) noexcept {
    LZ4_streamHC_t* const encoder = encoder_in(scratch, level);
    if (encoder == nullptr || source.size() > block_bytes_max) return 0;
    return compress_with(encoder, source, destination);
}

std::size_t compress_with_dictionary(Bytes source, MutableBytes destination, const Dictionary& dictionary,
                                     MutableBytes scratch) noexcept {
    LZ4_streamHC_t* const encoder = encoder_in(scratch, lz4_hc_codec.level_default);
    if (encoder == nullptr || source.size() > block_bytes_max || dictionary.lz4_hc_stream() == nullptr)
        return 0;
    LZ4_attach_HC_dictionary(encoder, dictionary.lz4_hc_stream());
    return compress_with(encoder, source, destination);
}

bool decompress(Bytes source, MutableBytes destination, MutableBytes scratch) noexcept {
    return lz4_codec.decompress(source, destination, scratch);
}

bool decompress_with_dictionary(Bytes source, MutableBytes destination, const Dictionary& dictionary,
                                MutableBytes scratch) noexcept {
    return lz4_dictionary_codec.decompress(source, destination, dictionary, scratch);
}

std::size_t bound(std::size_t source_bytes) {
    return lz4_codec.bound(source_bytes);
}

}  // namespace

constinit const Codec lz4_hc_codec = {
    .id = CodecId::lz4,
    .name = "lz4",
    .level_min = 4,
    .level_max = 4,
    .level_default = 4,  // 9 makes a page with a dictionary 1 % smaller and takes 1.6 times as long
    .block_bytes_max = block_bytes_max,
    .scratch_bytes = scratch_bytes,
    .decompress_scratch_bytes = no_decompress_scratch,
    .bound = bound,
    .compress = compress,
    .decompress = decompress,
};

constinit const DictionaryCodec lz4_hc_dictionary_codec = {
    .id = CodecId::lz4_dictionary,
    .base = &lz4_hc_codec,
    .scratch_bytes = scratch_bytes,
    .compress = compress_with_dictionary,
    .decompress = decompress_with_dictionary,
};

}  // namespace pnode::compress
