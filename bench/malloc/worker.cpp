#include "bench/malloc/worker.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

namespace pnode::bench {
namespace {

// Which library's allocator this process has: by what is mapped.
std::string allocator_here() {
    std::ifstream maps("/proc/self/maps");
    std::string found = "libc";
    for (std::string line; std::getline(maps, line);) {
        if (line.find("libpnode-preload") != std::string::npos) return "pnode";
        if (line.find("libjemalloc") != std::string::npos) found = "jemalloc";
    }
    return found;
}

const Workload& workload_named(const std::string& name) {
    const auto found =
        std::find_if(workloads().begin(), workloads().end(), [&](auto& one) { return name == one.name; });
    if (found == workloads().end()) throw std::runtime_error("no workload " + name);
    return *found;
}

}  // namespace

int run_worker() {
    std::printf("%s\n", allocator_here().c_str());
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string name;
        Load load{};
        unsigned threads = 0;
        words >> name >> load.live_bytes >> load.allocations >> load.seed >> threads;
        std::printf("%.0f\n", run(workload_named(name), load, threads));
        std::fflush(stdout);
    }
    return 0;
}

Worker::Worker(const std::vector<std::string>& wrapper, const std::string& allocator)
    : process_(wrapper, {"--worker"}) {
    if (const std::string found = process_.line(); found != allocator)
        throw std::runtime_error("a process that was to allocate with " + allocator + " does with " + found +
                                 ": ./quickstart installs what is missing");
}

double Worker::run(const Workload& workload, const Load& load, unsigned threads) {
    std::ostringstream line;
    line << workload.name << ' ' << load.live_bytes << ' ' << load.allocations << ' ' << load.seed << ' '
         << threads;
    process_.say(line.str());
    return std::stod(process_.line());
}

}  // namespace pnode::bench
