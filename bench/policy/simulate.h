// Replays a trace under a policy and counts what would have to be done.
#pragma once

#include <cstdint>

#include "bench/policy/policies.h"
#include "bench/policy/trace.h"

namespace pnode::bench {

// What each event costs, in ns: medians of pnode-bench-fault on one machine (docs/performance.md).
struct EventCosts {
    double promote_ns = 4400;
    double take_out_ns = 300;  // UFFDIO_MOVE, a page in runs
    double drop_ns = 500;      // unchanged, and its blob was kept
    double compress_ns = 9600;
    double look_ns = 2;  // at one page word
};
// Kernel zram keeps no blob: it compresses at every visit.
inline constexpr EventCosts zram_costs = {4600, 0, 12300, 12300, 0};

struct Counts {
    std::uint64_t accesses = 0;
    std::uint64_t promotions = 0;  // pages that had been far
    std::uint64_t dropped = 0;     // demotions of unchanged pages whose blob was kept
    std::uint64_t compressed = 0;  // all other demotions
    std::uint64_t looked_at = 0;

    double miss_ratio() const;
    double us_per_access(const EventCosts& costs) const;
};

// `kept_pages_max`: how many near pages may keep their blob at a time. The first half of the trace warms up
// and is not counted.
Counts simulate(const Trace& trace, std::uint32_t near_pages, std::uint32_t kept_pages_max, Policy& policy);

}  // namespace pnode::bench
