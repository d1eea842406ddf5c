// What there is on this machine, as JSON, and for whatever is missing the command that cures it.

#include <sys/prctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "compress/codec.h"
#include "compress/iaa/discovery.h"
#include "cxl/sizes.h"
#include "pnode/pnode.h"
#include "runtime/os/descriptors.h"
#include "runtime/os/runtime_scope.h"
#include "runtime/os/userfaultfd.h"

namespace pnode {
namespace {

using nlohmann::json;

constexpr struct {
    const char* name;
    std::uint64_t bit;
} features[] = {
    {"move", UFFD_FEATURE_MOVE},           {"write-protect", UFFD_FEATURE_PAGEFAULT_FLAG_WP},
    {"thread-id", UFFD_FEATURE_THREAD_ID}, {"sigbus", UFFD_FEATURE_SIGBUS},
    {"poison", UFFD_FEATURE_POISON},
};

long number_in(const char* path) {
    long value = -1;
    if (std::FILE* file = std::fopen(path, "re")) {
        if (std::fscanf(file, "%ld", &value) != 1) value = -1;
        std::fclose(file);
    }
    return value;
}

// Syscall User Dispatch, which the inline engine's shield is made of. It is a thread's own, so one of ours
// tries.
bool has_system_call_dispatch() {
    bool has = false;
    std::thread([&] {
        constexpr int set_dispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH
        unsigned char selector = 0;       // lets every call through
        has = ::prctl(set_dispatch, 1, 0, 0, &selector) == 0;
        ::prctl(set_dispatch, 0, 0, 0, 0);
    }).join();
    return has;
}

// Who serves the faults of a program under `pnode run`, if nobody says otherwise.
const char* engine_of_auto(bool full, bool raises_signals, bool dispatch) {
    if (raises_signals && dispatch) return "inline";
    return full ? "thread" : raises_signals ? "inline (API only)" : "none";
}

json probe_userfaultfd(json& missing) {
    constexpr std::uint64_t wanted = ~std::uint64_t{0};
    json found;
    const os::UffdOpened full = os::open_userfaultfd(wanted, true);
    os::UffdOpened any = full;
    if (full.fd < 0) any = os::open_userfaultfd(wanted, false);
    found["rung"] = os::describe(any.rung);
    found["kernel_access"] = full.fd >= 0;
    const bool dispatch = has_system_call_dispatch();
    found["system_call_dispatch"] = dispatch;
    found["engine"] = engine_of_auto(full.fd >= 0, any.fd >= 0 && any.has(UFFD_FEATURE_SIGBUS), dispatch);
    found["features"] = json::array();
    for (const auto& feature : features) {
        if (any.fd >= 0 && any.has(feature.bit)) found["features"].push_back(feature.name);
    }
    found["eviction"] = any.fd < 0 ? "none" : any.has(UFFD_FEATURE_MOVE) ? "move" : "write-protect";
    if (full.fd < 0) {
        missing.push_back({{"what", "a full userfaultfd, for handler threads (" +
                                        std::string(std::strerror(full.error)) + ")"},
                           {"cure", full.error == ENOSYS ? "use a kernel with CONFIG_USERFAULTFD=y"
                                                         : "sudo sysctl vm.unprivileged_userfaultfd=1"}});
    } else if (!full.has(UFFD_FEATURE_MOVE)) {
        missing.push_back({{"what", "UFFDIO_MOVE: eviction write-protects instead, which is slower"},
                           {"cure", "use Linux 6.8 or later"}});
    }
    os::close_descriptor(any.fd);
    return found;
}

json known(std::uint64_t number) {
    return number != 0 ? json(number) : json("unknown");
}

json address(std::uint64_t number) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(number));
    return text;
}

int add_node(const pn_node_info* info, void* nodes) {
    json node = {{"kind", info->kind}, {"spec", info->spec}, {"bytes_max", info->bytes}};
    if (std::string_view(info->kind) == "dax") {
        node["align_bytes"] = info->align_bytes;
        node["resource"] = info->resource != 0 ? address(info->resource) : json("told to root alone");
    }
    if (info->numa_node >= 0) node["numa_node"] = info->numa_node;
    if (std::string_view(info->kind) != "memory") {
        node["read_latency_ns"] = known(info->read_latency_ns);
        node["write_latency_ns"] = known(info->write_latency_ns);
        node["read_bandwidth_mbps"] = known(info->read_bandwidth_mbps);
        node["write_bandwidth_mbps"] = known(info->write_bandwidth_mbps);
    }
    static_cast<json*>(nodes)->push_back(std::move(node));
    return 0;
}

json probe_limits(json& missing) {
    constexpr long map_count_enough = 65530;
    const long map_count = number_in("/proc/sys/vm/max_map_count");
    if (map_count >= 0 && map_count < map_count_enough)
        missing.push_back({{"what", "vm.max_map_count is low: large heaps cannot be watched whole"},
                           {"cure", "sudo sysctl vm.max_map_count=65530"}});
    return {{"max_map_count", map_count},
            {"unprivileged_userfaultfd", number_in("/proc/sys/vm/unprivileged_userfaultfd")},
            {"memory_bytes", memory_bytes_available()},
            {"physical_bytes", physical_memory_bytes()},
            {"page_bytes", ::sysconf(_SC_PAGESIZE)}};
}

json probe_accelerators(json& missing) {
    const compress::iaa::QueuesFound queues = compress::iaa::find_queues("");
    json found = json::array();
    for (const compress::iaa::QueueInfo& queue : queues.usable)
        found.push_back({{"queue", queue.name},
                         {"path", queue.path},
                         {"mode", queue.dedicated ? "dedicated" : "shared"},
                         {"size", queue.size}});
    for (const std::string& refused : queues.refused)
        missing.push_back({{"what", "accelerator queue " + refused},
                           {"cure", "configure a user queue with accel-config (docs/hardware.md)"}});
    return found;
}

json probe() {
    json found;
    json missing = json::array();
    utsname kernel{};
    ::uname(&kernel);
    found["kernel"] = kernel.release;
    found["machine"] = kernel.machine;
    found["userfaultfd"] = probe_userfaultfd(missing);
    found["codecs"] = json::array();
    for (const compress::Codec* codec : compress::codecs()) found["codecs"].push_back(codec->name);
    found["nodes"] = json::array();
    pn_node_foreach(add_node, &found["nodes"]);
    found["accelerators"] = probe_accelerators(missing);
    found["limits"] = probe_limits(missing);
    found["missing"] = missing;
    return found;
}

}  // namespace
}  // namespace pnode

extern "C" int pn_probe_json(char* text, std::size_t capacity) noexcept {
    if (text == nullptr) return EINVAL;
    const pnode::os::RuntimeScope scope;
    try {
        const std::string found = pnode::probe().dump(2) + "\n";
        if (found.size() >= capacity) return ENOSPC;
        std::memcpy(text, found.c_str(), found.size() + 1);
        return 0;
    } catch (const std::exception&) {
        return ENOMEM;
    }
}
