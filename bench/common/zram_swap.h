// Kernel zram as swap for the length of an object: what every comparison with the kernel needs.
//
// A device of our own is added (hot_add), so that nobody else's is ever touched; a machine that swaps already
// is left alone, because there no one could say where a page went. Teardown is a guardian's: also after a
// crash.
#pragma once

#include <cstdint>
#include <string>

#include "bench/common/guardian.h"

namespace pnode::bench {

class ZramSwap {
  public:
    // "" when a ZramSwap can be made here, else one sentence that says why not.
    static std::string why_unavailable();

    // `disk_bytes`: uncompressed capacity. Throws std::runtime_error naming the step that failed; nothing is
    // left behind.
    explicit ZramSwap(std::uint64_t disk_bytes, const std::string& algorithm = "lz4");

    const std::string& device() const { return device_; }

    struct Usage {
        std::uint64_t original_bytes = 0;  // of the pages stored
        std::uint64_t memory_bytes = 0;    // of DRAM they take, the allocator's overhead included
    };
    Usage usage() const;

  private:
    Guardian guardian_;
    std::string device_;   // "/dev/zram1"
    std::string control_;  // "/sys/block/zram1"
};

}  // namespace pnode::bench
