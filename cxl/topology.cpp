#include "cxl/topology.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
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

// "0x" and digits.
std::uint64_t address_in(const fs::path& path) {
    std::ifstream file(path);
    std::uint64_t address = 0;
    file.unsetf(std::ios::basefield);
    return file >> address ? address : 0;
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

Performance performance_in(const fs::path& folder) {
    return {number_in(folder / "read_latency"), number_in(folder / "write_latency"),
            number_in(folder / "read_bandwidth"), number_in(folder / "write_bandwidth")};
}

// Of two classes: access1 tells of the nearest processors, access0 of the nearest initiator of any kind,
// which may be an adapter. A file with 0 says nothing. `below` is where the figures are, within a class.
Performance performance_of_classes(const fs::path& folder, const char* below) {
    for (const char* const access : {"access1", "access0"}) {
        const Performance told = performance_in(folder / access / below);
        if (told.is_known()) return told;
    }
    return {};
}

Performance performance_of(int node) {
    return performance_of_classes(node_folder(node), "initiators");
}

// A device's node tells, where some of its memory is online; before that the CXL region that the device is
// of (Linux 6.9), a folder above the device's own; else the firmware, to whoever may know the address.
Performance performance_of(const DaxDevice& device, const fs::path& folder) {
    Performance told;
    if (device.target_node >= 0) told = performance_of(device.target_node);
    std::error_code error;
    fs::path above = fs::canonical(folder, error);
    while (!error && !told.is_known() && above.has_relative_path()) {
        told = performance_of_classes(above, "");
        above = above.parent_path();
    }
    if (!told.is_known() && device.resource != 0)
        told = performance_at(device.resource, root() / "firmware/acpi/tables");
    return told;
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
    device.resource = address_in(folder / "resource");
    const std::string target = word_in(folder / "target_node");
    std::from_chars(target.data(), target.data() + target.size(), device.target_node);
    std::error_code error;
    device.is_system_ram = fs::read_symlink(folder / "driver", error).filename() == "kmem";
    device.performance = performance_of(device, folder);
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

// "0,2-3": does the kernel's list have the number?
bool list_has(const std::string& list, int number) {
    std::istringstream ranges(list);
    for (std::string range; std::getline(ranges, range, ',');) {
        std::istringstream ends(range);
        int first = -1;
        int last = -1;
        char dash = 0;
        if (!(ends >> first)) continue;
        if (!(ends >> dash >> last)) last = first;
        if (number >= first && number <= last) return true;
    }
    return false;
}

// The path in "0::/pnode.slice/pnode.service"; "" for who is in no group below the root.
std::string_view group_path(std::string_view own_cgroup) {
    constexpr std::string_view unified = "0::/";
    const std::size_t at = own_cgroup.find(unified);
    if (at == std::string_view::npos) return {};
    const std::string_view path = own_cgroup.substr(at + unified.size());
    return path.substr(0, path.find('\n'));
}

// A group without the file has what its parent has, whose path leads to us: the node.
bool may_use(const fs::path& group, int node) {
    const std::string nodes = word_in(group / "cpuset.mems.effective");
    return nodes.empty() || list_has(nodes, node);
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

bool is_open_to_others(int node, std::string_view own_cgroup) {
    std::string_view path = group_path(own_cgroup);
    fs::path folder = root() / "fs/cgroup";
    if (path.empty()) return true;
    while (!path.empty()) {
        const std::string_view own = path.substr(0, path.find('/'));
        for (const std::string& name : names_in(folder)) {
            std::error_code error;
            if (name != own && fs::is_directory(folder / name, error) && may_use(folder / name, node))
                return true;
        }
        folder /= own;
        path.remove_prefix(std::min(own.size() + 1, path.size()));
    }
    return false;
}

}  // namespace pnode::cxl
