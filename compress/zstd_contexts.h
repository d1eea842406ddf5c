// What zstd with and without a dictionary have in common. Internal to compress/.
#pragma once

#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "compress/codec.h"

namespace pnode::compress {

// In the front of `scratch`, made there when it is not yet. nullptr when the scratch is too small.
std::size_t zstd_decoder_scratch_bytes() noexcept;
ZSTD_DCtx* zstd_decoder_in(MutableBytes scratch) noexcept;
// Behind the decoder. `tag` tells kinds of encoders apart, `bytes` is what one of them needs.
ZSTD_CCtx* zstd_encoder_in(MutableBytes scratch, int level, std::uint64_t tag, std::size_t bytes) noexcept;

// The one frame header that is written and read (zstd.cpp).
bool is_zstd_frame(Bytes source) noexcept;

// What a dictionary's tables are made for: blocks of up to 64 KiB.
ZSTD_compressionParameters zstd_dictionary_parameters(int level) noexcept;

}  // namespace pnode::compress
