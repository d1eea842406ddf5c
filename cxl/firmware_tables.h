// What the firmware's own tables tell of memory by its address: ACPI's SRAT and HMAT, as sysfs shows them to
// root. For memory whose NUMA node is not online: the kernel has no figures of such a node.
//
// Thread rule: any thread; allocates, and reads files: never on the fault path.
#pragma once

#include <cstdint>
#include <string>

namespace pnode::cxl {

// As the platform states it (HMAT, CDAT), seen from the processors; 0 is unknown.
struct Performance {
    std::uint64_t read_latency_ns = 0;
    std::uint64_t write_latency_ns = 0;
    std::uint64_t read_bandwidth_mbps = 0;  // MB/s
    std::uint64_t write_bandwidth_mbps = 0;
    bool is_known() const noexcept { return read_latency_ns != 0 || read_bandwidth_mbps != 0; }
};

// Of the memory at a physical address, seen from the nearest processors; all 0 where the tables say nothing,
// are malformed, or are not to be read. `folder` has the files SRAT and HMAT.
Performance performance_at(std::uint64_t address, const std::string& folder);

}  // namespace pnode::cxl
