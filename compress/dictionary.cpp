#include "compress/dictionary.h"

#define ZSTD_STATIC_LINKING_ONLY
#define ZDICT_STATIC_LINKING_ONLY
#include <lz4.h>
#include <lz4hc.h>
#define XXH_INLINE_ALL  // keyed_hash.h
#include <xxhash.h>
#include <zdict.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

#include "compress/codec_tables.h"
#include "compress/zstd_contexts.h"

// compress/CMakeLists.txt
extern "C" {
extern std::FILE* pnode_zstd_stderr;
std::FILE* pnode_zstd_stderr = stderr;
}

namespace pnode::compress {
namespace {

constexpr std::size_t aligned(std::size_t bytes) {
    return (bytes + scratch_alignment - 1) / scratch_alignment * scratch_alignment;
}

// The tables that find matches in the content: as many entries as half its bytes. Larger ones, which zstd
// would choose, cost eight times the content and make a page 0.2 % smaller (bench/codec).
ZSTD_compressionParameters table_parameters(std::size_t content_bytes, int level) noexcept {
    ZSTD_compressionParameters parameters = zstd_dictionary_parameters(level);
    const unsigned log = std::max(static_cast<unsigned>(std::bit_width(content_bytes)) - 2, 10u);
    parameters.hashLog = std::min(parameters.hashLog, log);
    parameters.chainLog = std::min(parameters.chainLog, log);
    return parameters;
}

std::size_t encoder_bytes(std::size_t content_bytes, int level) noexcept {
    return aligned(ZSTD_estimateCDictSize_advanced(content_bytes, table_parameters(content_bytes, level),
                                                   ZSTD_dlm_byRef));
}

std::size_t decoder_bytes(std::size_t content_bytes) noexcept {
    return aligned(ZSTD_estimateDDictSize(content_bytes, ZSTD_dlm_byRef));
}

// The first of those that write the same blobs decodes them.
constexpr const DictionaryCodec* all_codecs[] = {&lz4_dictionary_codec, &lz4_hc_dictionary_codec,
                                                 &zstd_dictionary_codec};

}  // namespace

std::size_t Dictionary::train(Bytes samples, std::size_t sample_bytes, MutableBytes content, int zstd_level) {
    const std::vector<std::size_t> sizes(samples.size() / sample_bytes, sample_bytes);
    // ZDICT_trainFromBuffer() tries such settings out: ten times as long, for the same ratio on pages. Short
    // segments (k) fit more of what small blocks have in common; statistics made by the level that uses them
    // are another 1 %.
    ZDICT_fastCover_params_t settings = {};
    settings.k = 64;
    settings.d = 8;
    settings.f = 18;
    settings.accel = 1;
    settings.zParams.compressionLevel = zstd_level;
    const std::size_t bytes =
        ZDICT_trainFromBuffer_fastCover(content.data(), content.size(), samples.data(), sizes.data(),
                                        static_cast<unsigned>(sizes.size()), settings);
    return ZDICT_isError(bytes) != 0 ? 0 : bytes;
}

std::size_t Dictionary::memory_bytes(std::size_t content_bytes, int zstd_level) noexcept {
    const std::size_t always =
        aligned(sizeof(Dictionary)) + aligned(content_bytes) + aligned(sizeof(LZ4_stream_t));
    if (zstd_level == for_lz4_hc) return always + aligned(sizeof(LZ4_streamHC_t));
    return always + decoder_bytes(content_bytes) + encoder_bytes(content_bytes, zstd_level);
}

const Dictionary* Dictionary::make(MutableBytes memory, Bytes content, int zstd_level,
                                   Version version) noexcept {
    if (content.empty() || content.size() > content_bytes_max) return nullptr;
    if (memory.size() < memory_bytes(content.size(), zstd_level)) return nullptr;
    auto* const made = new (memory.data()) Dictionary;
    const MutableBytes copy = memory.subspan(aligned(sizeof(Dictionary)), content.size());
    std::memcpy(copy.data(), content.data(), content.size());
    made->content_ = copy;
    made->version_ = version;
    made->zstd_level_ = zstd_level;
    made->checksum_ = XXH3_64bits(copy.data(), copy.size());
    return made->prepare(memory.subspan(aligned(sizeof(Dictionary)) + aligned(content.size())), zstd_level)
               ? made
               : nullptr;
}

bool Dictionary::prepare(MutableBytes memory, int zstd_level) noexcept {
    auto* const stream = new (memory.data()) LZ4_stream_t;
    if (LZ4_initStream(stream, sizeof *stream) == nullptr) return false;
    LZ4_loadDict(stream, reinterpret_cast<const char*>(content_.data()), static_cast<int>(content_.size()));
    lz4_stream_ = stream;
    memory = memory.subspan(aligned(sizeof(LZ4_stream_t)));
    if (zstd_level == for_lz4_hc) return prepare_lz4_hc(memory);
    // ZSTD_dct_fullDict: content that zstd's trainer did not make is refused here, not found wanting later.
    zstd_decoder_ = ZSTD_initStaticDDict(memory.data(), decoder_bytes(content_.size()), content_.data(),
                                         content_.size(), ZSTD_dlm_byRef, ZSTD_dct_fullDict);
    memory = memory.subspan(decoder_bytes(content_.size()));
    zstd_encoder_ = ZSTD_initStaticCDict(memory.data(), encoder_bytes(content_.size(), zstd_level),
                                         content_.data(), content_.size(), ZSTD_dlm_byRef, ZSTD_dct_fullDict,
                                         table_parameters(content_.size(), zstd_level));
    return zstd_decoder_ != nullptr && zstd_encoder_ != nullptr;
}

bool Dictionary::prepare_lz4_hc(MutableBytes memory) noexcept {
    LZ4_streamHC_t* const stream = LZ4_initStreamHC(memory.data(), memory.size());
    if (stream == nullptr) return false;
    LZ4_loadDictHC(stream, reinterpret_cast<const char*>(content_.data()), static_cast<int>(content_.size()));
    lz4_hc_stream_ = stream;
    return true;
}

bool Dictionary::is_intact() const noexcept {
    return XXH3_64bits(content_.data(), content_.size()) == checksum_;
}

const DictionaryCodec* dictionary_codec_by_id(CodecId id) noexcept {
    for (const DictionaryCodec* codec : all_codecs)
        if (codec->id == id) return codec;
    return nullptr;
}

const DictionaryCodec* dictionary_codec_of(const Codec* base) noexcept {
    for (const DictionaryCodec* codec : all_codecs)
        if (codec->base == base) return codec;
    return nullptr;
}

}  // namespace pnode::compress
