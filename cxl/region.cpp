#include "cxl/region.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "cxl/memory_file.h"
#include "cxl/sizes.h"
#include "cxl/topology.h"

namespace pnode::cxl {

namespace {

constexpr std::uint64_t page_bytes = 4096;
constexpr std::uint64_t worth_having_bytes = std::uint64_t{64} << 20;

std::uint64_t round_up(std::uint64_t bytes) {
    return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

int open_memory_spec(const RegionSpec& spec, std::unique_ptr<Region>* out, std::string* message) {
    const std::uint64_t all = physical_memory_bytes();
    if (spec.size_bytes > all) {
        return fail(ENOMEM, message,
                    "memory:" + std::to_string(spec.size_bytes) + " is larger than this machine's memory (" +
                        format_size(all) + "): name less, or a share such as memory:50%");
    }
    return open_memory_region(round_up(spec.size_bytes), out, message);
}

// The first that can be had; what was passed over, and why, is told with the choice.
int open_automatic(const RegionSpec& wanted, std::unique_ptr<Region>* out, std::string* message) {
    std::string passed_over;
    std::string why;
    RegionSpec spec;
    spec.kind = RegionKind::dax;
    for (const DaxDevice& device : dax_devices()) {
        spec.device = device.path();
        if (open_dax_region(spec, out, &why) == 0) {
            (*out)->set_notice("auto: dax:" + spec.device + ", a device of its own");
            return 0;
        }
        passed_over += "; not " + why;
    }
    // A node that somebody else has filled still has a little, and would be a node that holds nothing.
    spec.least_bytes_wanted = std::max(wanted.size_bytes, worth_having_bytes);
    for (const NumaNode& node : numa_nodes()) {
        if (node.has_cpus || node.memory_bytes == 0) continue;
        spec.numa_node = node.number;
        if (open_numa_region(spec, out, &why) == 0) {
            (*out)->set_notice("auto: numa:" + std::to_string(node.number) + ", a node without CPUs" +
                               passed_over + ((*out)->notice().empty() ? "" : "; ") + (*out)->notice());
            return 0;
        }
        passed_over += "; not " + why;
    }
    if (passed_over.empty()) passed_over = "; there is no devdax device and no NUMA node without CPUs";
    spec.size_bytes = wanted.size_bytes != 0 ? wanted.size_bytes : physical_memory_bytes();
    if (const int error = open_memory_spec(spec, out, message)) return error;
    (*out)->set_notice("auto: memory:" + std::to_string(spec.size_bytes) + passed_over);
    return 0;
}

int open_parsed(const RegionSpec& spec, std::unique_ptr<Region>* out, std::string* message) {
    switch (spec.kind) {
        case RegionKind::memory:
            return open_memory_spec(spec, out, message);
        case RegionKind::dax:
            return open_dax_region(spec, out, message);
        case RegionKind::numa:
            return open_numa_region(spec, out, message);
        case RegionKind::automatic:
            return open_automatic(spec, out, message);
        case RegionKind::simulated:
            return open_simulated_region(spec, out, message);
    }
    __builtin_unreachable();
}

}  // namespace

bool Region::store(std::size_t offset, std::span<const std::byte> bytes) noexcept {
    BadRange bad;
    return load([&] { std::memcpy(bytes_ + offset, bytes.data(), bytes.size()); }, &bad);
}

bool Region::clear(std::size_t offset, std::size_t length) noexcept {
    BadRange bad;
    return load([&] { std::memset(bytes_ + offset, 0, length); }, &bad);
}

int open_region(const std::string& spec, std::unique_ptr<Region>* out, std::string* message) {
    RegionSpec parsed;
    if (const int error = read_region_spec(spec, &parsed, message)) return error;
    try {
        return open_parsed(parsed, out, message);
    } catch (const std::bad_alloc&) {
        return fail(ENOMEM, message, "no memory to describe the region: free some");
    }
}

}  // namespace pnode::cxl
