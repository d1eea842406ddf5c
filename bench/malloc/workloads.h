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
    // One thread's part. `threads` take part; they share what `begin` made.
    void (*run)(const Load& load, unsigned thread, unsigned threads);
};

// mixed: each thread its own blocks. passed: a block is freed by whichever thread finds it. records: trees of
// strings are built and torn down. large: 256 KiB to 2 MiB, touched throughout.
const std::vector<Workload>& workloads();
std::vector<std::string> workload_names();

// Allocations a second of all threads. Throws std::runtime_error if a block's ends have changed.
double run(const Workload& workload, const Load& load, unsigned threads);

}  // namespace pnode::bench
