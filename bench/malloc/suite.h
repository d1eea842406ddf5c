// A program that does little but malloc() and free(), under pnode with nothing cold, beside the same program
// with jemalloc preloaded, which pnode has its heap from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pnode::bench {

struct MallocOptions {
    std::size_t live_bytes = std::size_t{128} << 20;
    std::uint64_t allocations = 1'000'000;  // of each thread, a turn
    int processes = 9;                      // of each allocator, one after another
    int rounds = 3;                         // of each process
    std::vector<unsigned> threads = {1, 2};
    std::vector<std::string> workloads;  // beginnings of their names; all
    bool json = false;
    std::string pnode;     // the command
    std::string jemalloc;  // the library
};

// Throws std::runtime_error.
void run_malloc_suite(const MallocOptions& options);

}  // namespace pnode::bench
