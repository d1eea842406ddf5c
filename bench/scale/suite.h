// The same touches on heaps of different sizes, in turns.
#pragma once

#include <cstdint>
#include <vector>

namespace pnode::bench {

struct ScaleOptions {
    std::vector<std::uint64_t> dense_bytes = {std::uint64_t{1} << 30, std::uint64_t{8} << 30};
    std::uint64_t sparse_bytes = std::uint64_t{1} << 40;  // of addresses; 0: none
    std::uint64_t sparse_pages = std::uint64_t{1} << 18;  // of them that are used
    std::uint64_t near_bytes = std::uint64_t{64} << 20;   // of each heap
    std::uint64_t touches = 100'000;                      // a round, of each kind
    int rounds = 5;
    bool json = false;
};

// Prints its table, or one JSON object a line.
void run_scale_suite(const ScaleOptions& options);

}  // namespace pnode::bench
