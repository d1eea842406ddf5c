// A kernel zram device of our own for the length of an object: what pages take in it, whoever writes them.
//
// It is added (hot_add), so that nobody else's is ever touched. Teardown is a guardian's: also after a crash,
// and with the device in use as swap.
#pragma once

#include <cstdint>
#include <string>

#include "bench/common/guardian.h"

namespace pnode::bench {

class ZramDevice {
  public:
    // "" when a ZramDevice can be made here, else one sentence that says why not.
    static std::string why_unavailable();

    // `disk_bytes`: uncompressed capacity, rounded up to pages. Throws std::runtime_error naming the step
    // that failed; nothing is left behind.
    explicit ZramDevice(std::uint64_t disk_bytes, const std::string& algorithm = "lz4");

    const std::string& path() const { return path_; }
    std::uint64_t disk_bytes() const { return disk_bytes_; }

    struct Usage {
        std::uint64_t original_bytes = 0;  // of the pages stored
        std::uint64_t memory_bytes = 0;    // of DRAM they take, the allocator's overhead included
    };
    Usage usage() const;

  private:
    Guardian guardian_;
    std::string path_;     // "/dev/zram1"
    std::string control_;  // "/sys/block/zram1"
    std::uint64_t disk_bytes_;
};

}  // namespace pnode::bench
