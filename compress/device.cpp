// Pages as they are, for a device that compresses what is stored into it.
#include <cstring>

#include "compress/codec_tables.h"

namespace pnode::compress {
namespace {

std::size_t as_much(std::size_t source_bytes) {
    return source_bytes;
}

std::size_t compress(Bytes source, MutableBytes destination, int, MutableBytes) noexcept {
    if (source.size() > block_bytes_max || destination.size() < source.size()) return 0;
    std::memcpy(destination.data(), source.data(), source.size());
    return source.size();
}

bool decompress(Bytes source, MutableBytes destination, MutableBytes) noexcept {
    if (source.size() != destination.size()) return false;
    std::memcpy(destination.data(), source.data(), source.size());
    return true;
}

}  // namespace

constinit const Codec device_codec = {
    .id = CodecId::device,
    .name = "device",
    .level_min = 0,
    .level_max = 0,
    .level_default = 0,
    .block_bytes_max = block_bytes_max,
    .scratch_bytes = no_scratch,
    .decompress_scratch_bytes = no_decompress_scratch,
    .bound = as_much,
    .compress = compress,
    .decompress = decompress,
    .keeps_size = true,
};

}  // namespace pnode::compress
