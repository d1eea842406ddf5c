// What a region's name says: parsed in this one place, for nodes, heaps, options and the environment.
//
//     memory:SIZE                             a memfd: compressed bytes in DRAM
//     dax:/dev/daxX.Y[:OFFSET+SIZE]           a device, or a file on a DAX or memory file system; all of it
//     or
//                                             a range
//     numa:N[:SIZE]                           memory bound to the NUMA node N, which has no CPU
//     auto[:SIZE]                             dax, else numa, else memory (SIZE: of memory)
//     sim:SIZE[,ratio=R][,physical=SIZE]      a simulated device that compresses inline and has less than it
//                                             promises
//
// SIZE as parse_size() takes it. Thread rule: any thread; allocates.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pnode::cxl {

enum class RegionKind : std::uint8_t { memory, dax, numa, automatic, simulated };

struct RegionSpec {
    RegionKind kind = RegionKind::memory;
    std::uint64_t size_bytes = 0;          // 0: all there is
    std::uint64_t least_bytes_wanted = 0;  // ... but not less than this
    std::uint64_t offset_bytes = 0;
    std::uint64_t physical_bytes = 0;  // what a simulated device really has
    std::string device;
    int numa_node = -1;
};

// "memory:SIZE, dax:...": what takes a spec says this, and which spec it was.
inline constexpr const char* region_spec_grammar =
    "memory:SIZE, dax:/dev/daxX.Y[:OFFSET+SIZE], numa:N[:SIZE], auto[:SIZE] or "
    "sim:SIZE[,ratio=R][,physical=SIZE]";

// False, `spec` untouched, with one line in `why` (may be null) that says what is wrong.
bool parse_region_spec(std::string_view text, RegionSpec* spec, std::string* why);
// The same for who opens it: 0, or EINVAL and a line that is complete.
int read_region_spec(std::string_view text, RegionSpec* spec, std::string* message);

}  // namespace pnode::cxl
