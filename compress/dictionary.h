// A dictionary: what the blocks of one heap have in common, so that a small block need not say it again.
//
// It has a version, which every blob made with it names; without that very dictionary the blob cannot be
// decoded. It is prepared once, in memory the caller lends (nothing is allocated), and constant from then on.
//
// Thread rule: train() allocates and takes some 20 ms, and make() takes a millisecond: never on the fault
// path. A dictionary that is made may be used by any thread at once.
#pragma once

#include "compress/codec.h"

struct ZSTD_CDict_s;
struct ZSTD_DDict_s;
union LZ4_streamHC_u;

namespace pnode::compress {

class Dictionary {
  public:
    using Version = std::uint16_t;
    static constexpr std::size_t content_bytes_max = 65536;

    // Fills `content` with what the samples have in common: how many bytes, or 0: too few samples (32
    // times the content is right, ten times is the least), or too unlike. `samples` holds samples of
    // `sample_bytes` each, one after another. zstd's statistics in it are those of `zstd_level`.
    static std::size_t train(Bytes samples, std::size_t sample_bytes, MutableBytes content,
                             int zstd_level = 3);

    // In the place of a zstd level: for lz4 that takes its time instead, and not for zstd at all.
    static constexpr int for_lz4_hc = 0;
    // Memory that make() wants, aligned to scratch_alignment.
    static std::size_t memory_bytes(std::size_t content_bytes, int zstd_level) noexcept;
    // Copies the content into `memory` and prepares it there, for lz4 and for zstd at `zstd_level`. nullptr:
    // the memory is too small, or the content is not what train() makes. `memory` must live, unchanged, as
    // long as the dictionary is used; there is nothing to destroy.
    static const Dictionary* make(MutableBytes memory, Bytes content, int zstd_level,
                                  Version version) noexcept;

    Version version() const noexcept { return version_; }
    int zstd_level() const noexcept { return zstd_level_; }
    Bytes content() const noexcept { return content_; }
    // Does the content still have the checksum it was made with? A look at all of it: for reports.
    bool is_intact() const noexcept;

    const ZSTD_CDict_s* zstd_encoder() const noexcept { return zstd_encoder_; }
    const ZSTD_DDict_s* zstd_decoder() const noexcept { return zstd_decoder_; }
    // An LZ4_stream_t with the content loaded.
    const void* lz4_stream() const noexcept { return lz4_stream_; }
    // null unless made for it, as zstd's two are then.
    const LZ4_streamHC_u* lz4_hc_stream() const noexcept { return lz4_hc_stream_; }

  private:
    Dictionary() = default;
    bool prepare(MutableBytes memory, int zstd_level) noexcept;
    bool prepare_lz4_hc(MutableBytes memory) noexcept;

    Bytes content_;
    std::uint64_t checksum_ = 0;
    const ZSTD_CDict_s* zstd_encoder_ = nullptr;
    const ZSTD_DDict_s* zstd_decoder_ = nullptr;
    const void* lz4_stream_ = nullptr;
    const LZ4_streamHC_u* lz4_hc_stream_ = nullptr;
    int zstd_level_ = 0;
    Version version_ = 0;
};

// The codecs that have a second way, with a dictionary. Rules as for Codec's functions.
struct DictionaryCodec {
    CodecId id;         // of blobs made this way
    const Codec* base;  // the same without a dictionary
    std::size_t (*scratch_bytes)(int level);
    std::size_t (*compress)(Bytes source, MutableBytes destination, const Dictionary& dictionary,
                            MutableBytes scratch) noexcept;
    bool (*decompress)(Bytes source, MutableBytes destination, const Dictionary& dictionary,
                       MutableBytes scratch) noexcept;
};

// nullptr where there is none.
const DictionaryCodec* dictionary_codec_by_id(CodecId id) noexcept;
const DictionaryCodec* dictionary_codec_of(const Codec* base) noexcept;

}  // namespace pnode::compress
