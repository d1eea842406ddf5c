// Finding work queues by sysfs: /sys/bus/dsa/devices/iax*/wq*, as the idxd driver lists them.
//
// Thread rule: at start; allocates and may throw std::bad_alloc.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pnode::compress::iaa {

struct QueueInfo {
    std::string name;  // "iax1/wq1.0"
    std::string path;  // of its character device
    int numa_node = -1;
    unsigned size = 0;  // descriptors it holds
    bool dedicated = false;
    bool block_on_fault = false;
};

struct QueuesFound {
    std::vector<QueueInfo> usable;     // those of this processor's NUMA node first
    std::vector<std::string> refused;  // "iax1/wq1.1: its type is kernel"
};

// `root` is prefixed to every path; "" but in tests.
QueuesFound find_queues(const std::string& root);

}  // namespace pnode::compress::iaa
