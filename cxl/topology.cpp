#include "cxl/topology.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string_view>

namespace pnode::cxl {

namespace {

constinit const char* sysfs_root = "/sys";

namespace fs = std::filesystem;

fs::path root() {
    return sysfs_root;
}

// The first word of a file, "" when there is none.
std::string word_in(const fs::path& path) {
    std::ifstream file(path);
    std::string word;
    file >> word;
    return word;
}

std::uint64_t number_in(const fs::path& path) {
    std::ifstream file(path);
    std::uint64_t number = 0;
    return file >> number ? number : 0;
}

// The number behind "NAME:" in a node's meminfo, which counts in kB.
std::uint64_t meminfo_bytes(const fs::path& folder, std::string_view name) {
    std::ifstream file(folder / "meminfo");
    std::string word;
    while (file >> word) {
        std::uint64_t kib = 0;
        if (word == name && file >> kib) return kib * 1024;
    }
    return 0;
}

fs::path node_folder(int number) {
    return root() / "devices/system/node" / ("node" + std::to_string(number));
}

// access0 is told for the best initiator of any kind; a file with 0 says nothing.
Performance performance_of(int node) {
    const fs::path initiators = node_folder(node) / "access0/initiators";
    return {number_in(initiators / "read_latency"), number_in(initiators / "read_bandwidth")};
}

// Names in a folder, sorted; none when it cannot be read.
std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
        names.push_back(entry->path().filename());
    std::sort(names.begin(), names.end());
    return names;
}

DaxDevice read_dax_device(const std::string& name) {
    const fs::path folder = root() / "bus/dax/devices" / name;
    DaxDevice device;
    device.name = name;
    device.size_bytes = number_in(folder / "size");
    device.align_bytes = std::max<std::uint64_t>(number_in(folder / "align"), 4096);
    const std::string target = word_in(folder / "target_node");
    std::from_chars(target.data(), target.data() + target.size(), device.target_node);
    std::error_code error;
    device.is_system_ram = fs::read_symlink(folder / "driver", error).filename() == "kmem";
    if (device.target_node >= 0) device.performance = performance_of(device.target_node);
    return device;
}

NumaNode read_numa_node(int number) {
    const fs::path folder = node_folder(number);
    NumaNode node;
    node.number = number;
    node.has_cpus = !word_in(folder / "cpulist").empty();
    node.memory_bytes = meminfo_bytes(folder, "MemTotal:");
    node.free_bytes = meminfo_bytes(folder, "MemFree:");
    const std::string demotion = word_in(root() / "kernel/mm/numa/demotion_enabled");
    node.demotion_targets = demotion == "true" || demotion == "1";
    node.performance = performance_of(number);
    return node;
}

}  // namespace

void set_sysfs_root(const char* root) {
    sysfs_root = root;
}

std::vector<DaxDevice> dax_devices() {
    std::vector<DaxDevice> devices;
    for (const std::string& name : names_in(root() / "bus/dax/devices"))
        devices.push_back(read_dax_device(name));
    return devices;
}

std::vector<NumaNode> numa_nodes() {
    std::vector<NumaNode> nodes;
    for (const std::string& name : names_in(root() / "devices/system/node")) {
        constexpr std::string_view prefix = "node";
        int number = -1;
        if (!name.starts_with(prefix)) continue;
        const char* const end = name.data() + name.size();
        const auto [stopped, error] = std::from_chars(name.data() + prefix.size(), end, number);
        if (error == std::errc{} && stopped == end) nodes.push_back(read_numa_node(number));
    }
    return nodes;
}

bool find_dax_device(dev_t number, DaxDevice* out) {
    const std::string wanted =
        std::to_string(gnu_dev_major(number)) + ":" + std::to_string(gnu_dev_minor(number));
    for (const std::string& name : names_in(root() / "bus/dax/devices")) {
        if (word_in(root() / "bus/dax/devices" / name / "dev") != wanted) continue;
        *out = read_dax_device(name);
        return true;
    }
    return false;
}

bool find_numa_node(int number, NumaNode* out) {
    std::error_code error;
    if (!fs::is_directory(node_folder(number), error)) return false;
    *out = read_numa_node(number);
    return true;
}

std::uint64_t numa_free_bytes(int number) {
    return meminfo_bytes(node_folder(number), "MemFree:");
}

}  // namespace pnode::cxl
