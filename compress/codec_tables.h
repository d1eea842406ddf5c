// One const table per codec, each defined in the file named after it; codec.cpp lists them.
#pragma once

#include "compress/codec.h"
#include "compress/dictionary.h"

namespace pnode::compress {

// Of who needs none.
inline std::size_t no_scratch(int) {
    return 0;
}
inline std::size_t no_decompress_scratch() {
    return 0;
}

extern const Codec same_filled_codec;
extern const Codec lz4_codec;
extern const Codec lz4_hc_codec;  // writes what lz4 reads; not a choice of anybody's
extern const Codec zstd_codec;
extern const Codec deflate_codec;
extern const Codec device_codec;

extern const DictionaryCodec lz4_dictionary_codec;
extern const DictionaryCodec lz4_hc_dictionary_codec;
extern const DictionaryCodec zstd_dictionary_codec;

}  // namespace pnode::compress
