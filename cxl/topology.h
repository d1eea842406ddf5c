// What memory the machine has beside its DRAM, as sysfs tells: devdax devices and NUMA nodes.
//
// Thread rule: any thread; allocates, and reads files: never on the fault path.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cxl/firmware_tables.h"

namespace pnode::cxl {

struct DaxDevice {
    std::string name;  // dax0.0
    std::uint64_t size_bytes = 0;
    std::uint64_t align_bytes = 0;
    std::uint64_t resource = 0;  // its physical address; 0: not told, to whoever is not root
    int target_node = -1;        // the node it would be, or -1
    bool is_system_ram = false;  // the kernel has it as ordinary memory
    Performance performance;
    std::string path() const { return "/dev/" + name; }
};

struct NumaNode {
    int number = -1;
    bool has_cpus = false;
    bool demotion_targets = false;  // the kernel may demote other nodes' pages to it
    std::uint64_t memory_bytes = 0;
    std::uint64_t free_bytes = 0;
    Performance performance;
};

// In the order of their names.
std::vector<DaxDevice> dax_devices();
std::vector<NumaNode> numa_nodes();

// False: there is none.
bool find_dax_device(dev_t number, DaxDevice* out);
bool find_numa_node(int number, NumaNode* out);
std::uint64_t numa_free_bytes(int number);

// May programs of other control groups (v2) allocate on the node, which those of `own_cgroup` may? That is
// /proc/self/cgroup. Where there is no telling they may.
bool is_open_to_others(int node, std::string_view own_cgroup);
// One line: who else the node is open to, and how an administrator closes it. "" when to nobody.
std::string numa_notice(const NumaNode& node);

// Where sysfs is: another tree, for tests. Before any other thread looks.
void set_sysfs_root(const char* root);

}  // namespace pnode::cxl
