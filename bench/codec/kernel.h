// Kernel zram beside the codecs: the same pages on a device of our own.
#pragma once

#include <cstdint>

#include "compress/codec.h"

namespace pnode::bench {

// DRAM that the pages take in kernel zram with lz4, its allocator's overhead included. Throws
// std::runtime_error. No thread may be running (guardian.h).
std::uint64_t zram_bytes(compress::Bytes pages);

}  // namespace pnode::bench
