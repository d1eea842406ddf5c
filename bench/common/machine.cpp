#include "bench/common/machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>

namespace pnode::bench {
namespace {

// The value behind "name<blanks>: "; "" when there is none.
std::string cpuinfo(const std::string& name) {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        const std::size_t colon = line.find(": ");
        if (line.starts_with(name) && colon != std::string::npos) return line.substr(colon + 2);
    }
    return "";
}

std::string kernel() {
    utsname names = {};
    uname(&names);
    return std::string(names.sysname) + " " + names.release + " " + names.machine;
}

}  // namespace

nlohmann::ordered_json header(const std::string& program, nlohmann::ordered_json options) {
    const auto memory_bytes = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
                              static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    const bool is_virtual = (" " + cpuinfo("flags") + " ").find(" hypervisor ") != std::string::npos;
    return {{"kind", "header"},
            {"program", program},
            {"machine",
             {{"cpu", cpuinfo("model name")},
              {"cpus", sysconf(_SC_NPROCESSORS_ONLN)},
              {"memory_bytes", memory_bytes},
              {"virtual", is_virtual}}},
            {"kernel", kernel()},
            {"options", std::move(options)}};
}

nlohmann::ordered_json percentiles_json(const Round& round) {
    nlohmann::ordered_json object = nlohmann::ordered_json::object();
    for (std::size_t i = 0; i < latency_percents.size(); ++i) {
        char name[16];
        snprintf(name, sizeof name, "%g", latency_percents[i]);
        object[name] = std::llround(round.percentiles_ns[i]);
    }
    return object;
}

nlohmann::ordered_json ratio_json(double ratio) {
    return ratio > 0 ? nlohmann::ordered_json(std::round(ratio * 1000) / 1000) : nlohmann::ordered_json();
}

}  // namespace pnode::bench
