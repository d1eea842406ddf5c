#include "compress/iaa/discovery.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "compress/iaa/hardware.h"

namespace pnode::compress::iaa {
namespace {

namespace fs = std::filesystem;

// "" when there is no such attribute.
std::string attribute(const fs::path& folder, const char* name) {
    std::ifstream file(folder / name);
    std::string line;
    std::getline(file, line);
    return line;
}

std::uint64_t number(const std::string& text, std::uint64_t otherwise) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size() ? value : otherwise;
}

// Subfolders whose name begins with `prefix`, in order. The driver lists devices as links.
std::vector<fs::path> subfolders(const fs::path& folder, std::string_view prefix) {
    std::vector<fs::path> found;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
        if (at->path().filename().string().starts_with(prefix)) found.push_back(at->path());
    std::ranges::sort(found);
    return found;
}

struct Wanted {
    const char* attribute;
    const char* value;
};
constexpr Wanted wanted_of_queue[] = {{"state", "enabled"}, {"type", "user"}, {"driver_name", "user"}};

// What stands against using the queue; "" for nothing.
std::string objection(const fs::path& queue) {
    for (const auto& [name, value] : wanted_of_queue) {
        const std::string found = attribute(queue, name);
        // Kernels before 5.18 have no driver_name.
        if (found != value && !(found.empty() && std::string_view(name) == "driver_name"))
            return std::string("its ") + name + " is " + (found.empty() ? "not told" : found);
    }
    const std::string mode = attribute(queue, "mode");
    if (mode != "shared" && mode != "dedicated") return "its mode is " + (mode.empty() ? "not told" : mode);
    if (number(attribute(queue, "size"), 0) == 0) return "it holds no descriptor";
    if (number(attribute(queue, "max_transfer_size"), page_bytes) < page_bytes)
        return "it transfers less than a page";
    return "";
}

void look_at(const std::string& root, const fs::path& device, const fs::path& queue, QueuesFound* found) {
    const std::string name = queue.filename().string();
    QueueInfo info;
    info.name = device.filename().string() + "/" + name;
    info.path = root + "/dev/iax/" + name;
    const std::string device_state = attribute(device, "state");
    const std::string against =
        device_state != "enabled" ? "the device's state is " + device_state : objection(queue);
    if (!against.empty()) {
        found->refused.push_back(info.name + ": " + against);
        return;
    }
    const std::string node = attribute(device, "numa_node");
    info.numa_node =
        static_cast<int>(static_cast<std::int64_t>(number(node, static_cast<std::uint64_t>(-1))));
    info.size = static_cast<unsigned>(number(attribute(queue, "size"), 0));
    info.dedicated = attribute(queue, "mode") == "dedicated";
    info.block_on_fault = attribute(queue, "block_on_fault") == "1";
    found->usable.push_back(std::move(info));
}

}  // namespace

QueuesFound find_queues(const std::string& root) {
    QueuesFound found;
    for (const fs::path& device : subfolders(root + "/sys/bus/dsa/devices", "iax"))
        for (const fs::path& queue : subfolders(device, "wq")) look_at(root, device, queue, &found);
    unsigned processor = 0;
    unsigned here = 0;
    if (::getcpu(&processor, &here) == 0)
        std::stable_partition(found.usable.begin(), found.usable.end(), [&](const QueueInfo& info) {
            return info.numa_node == static_cast<int>(here);
        });
    return found;
}

}  // namespace pnode::compress::iaa
