// What programs do with malloc and free, each until it made so many allocations. Every block's ends are
// written to, and looked at before it is freed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pnode::bench {

struct Load {
    std::size_t live_bytes;     // of all threads together, about
    std::uint64_t allocations;  // of each thread
    std::uint64_t seed;
};

struct Workload {
    const char* name;
    const char* what;
    unsigned one_in;  // of the allocations asked for it makes one in so many, rounded down
    // One thread's part; so many take part.
    void (*run)(const Load& load, unsigned thread, unsigned threads);
};

// mixed: each thread its own blocks. passed: a block is freed by whichever thread finds it. records: trees of
// strings are built and torn down. large: 256 KiB to 2 MiB, touched throughout.
const std::vector<Workload>& workloads();
std::vector<std::string> workload_names();

// Allocations a second of all threads. Throws std::runtime_error if a block's ends have changed.
double run(const Workload& workload, const Load& load, unsigned threads);

}  // namespace pnode::bench
