// Kernel zram as swap for the length of an object: what every comparison with the kernel's faults needs.
//
// A machine that swaps already is left alone, because there no one could say where a page went.
#pragma once

#include <cstdint>
#include <string>

#include "bench/common/zram_device.h"

namespace pnode::bench {

class ZramSwap {
  public:
    // "" when a ZramSwap can be made here, else one sentence that says why not.
    static std::string why_unavailable();

    // As ZramDevice.
    explicit ZramSwap(std::uint64_t disk_bytes, const std::string& algorithm = "lz4");

    const std::string& device() const { return device_.path(); }
    using Usage = ZramDevice::Usage;
    Usage usage() const { return device_.usage(); }

  private:
    ZramDevice device_;
};

}  // namespace pnode::bench
