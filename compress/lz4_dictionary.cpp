// LZ4's block format with matches in a dictionary.
//
// The prepared stream is copied into the scratch at each call: 16 KiB, no dearer than the clearing that a
// block without a dictionary costs, and the result depends on the block and the dictionary alone.
#include <lz4.h>

#include <algorithm>
#include <cstring>

#include "compress/codec_tables.h"
#include "compress/scratch_label.h"

namespace pnode::compress {
namespace {

std::size_t scratch_bytes(int) {
    return sizeof(ScratchLabel) + sizeof(LZ4_stream_t);
}

std::size_t compress(Bytes source, MutableBytes destination, const Dictionary& dictionary,
                     MutableBytes scratch) noexcept {
    if (source.size() > block_bytes_max || scratch.size() < scratch_bytes(0)) return 0;
    scratch_label(scratch)->clear();  // the stream overwrites what another codec had here
    void* const at = scratch.data() + sizeof(ScratchLabel);
    std::memcpy(at, dictionary.lz4_stream(), sizeof(LZ4_stream_t));
    const auto source_bytes = static_cast<int>(source.size());
    const int room = static_cast<int>(std::min(destination.size(), lz4_codec.bound(block_bytes_max)));
    const int written = LZ4_compress_fast_continue(
        static_cast<LZ4_stream_t*>(at), reinterpret_cast<const char*>(source.data()),
        reinterpret_cast<char*>(destination.data()), source_bytes, room, 1);
    return written > 0 ? static_cast<std::size_t>(written) : 0;
}

bool decompress(Bytes source, MutableBytes destination, const Dictionary& dictionary, MutableBytes) noexcept {
    if (source.size() > lz4_codec.bound(block_bytes_max) || destination.size() > block_bytes_max)
        return false;
    const int wanted = static_cast<int>(destination.size());
    return LZ4_decompress_safe_usingDict(reinterpret_cast<const char*>(source.data()),
                                         reinterpret_cast<char*>(destination.data()),
                                         static_cast<int>(source.size()), wanted,
                                         reinterpret_cast<const char*>(dictionary.content().data()),
                                         static_cast<int>(dictionary.content().size())) == wanted;
}

}  // namespace

constinit const DictionaryCodec lz4_dictionary_codec = {
    .id = CodecId::lz4_dictionary,
    .base = &lz4_codec,
    .scratch_bytes = scratch_bytes,
    .compress = compress,
    .decompress = decompress,
};

}  // namespace pnode::compress
