// Threads that start together, each with its share of the work, and what they measured as one round.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "bench/common/samples.h"

namespace pnode::bench {

struct Share {
    std::size_t begin, end;
};

// Runs `work(share, latencies)` in `threads` threads over shares of `count` items; `operations` is what per_s
// counts. `latencies` has room for one value an item. The first exception of a thread is rethrown after all
// have ended.
Round run_together(std::size_t count, int threads, std::uint64_t operations,
                   const std::function<void(Share, std::vector<std::uint32_t>&)>& work);

// For `latencies`: what does not fit becomes the largest.
std::uint32_t clamp_ns(std::uint64_t ns);

}  // namespace pnode::bench
