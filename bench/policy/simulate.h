// Replays a trace under a policy and counts what would have to be done.
#pragma once

#include <cstdint>

#include "bench/policy/policies.h"
#include "bench/policy/trace.h"
#include "runtime/keep_rule.h"

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
    std::uint64_t near_pages_sum = 0;  // over the accesses: how many were near

    double miss_ratio() const;
    double us_per_access(const EventCosts& costs) const;
    double near_pages() const;  // on average
};

// `kept_pages_max`: how many near pages may keep their blob at a time. The first half of the trace warms up
// and is not counted.
Counts simulate(const Trace& trace, std::uint32_t near_pages, std::uint32_t kept_pages_max, Policy& policy);

// Near pages and all blobs, kept ones too, share one limit.
struct SharedTotal {
    std::uint64_t total_bytes = 0;  // enough for all blobs
    std::uint64_t blob_bytes = 0;   // of each page
    // Does a page of this level keep its blob when it comes near?
    bool (*keeps)(const MemoryUse& use, unsigned level) = nullptr;

    // What may be near while no near page keeps a blob.
    std::uint32_t near_pages_if_none_kept(std::uint32_t pages) const;
};
Counts simulate(const Trace& trace, const SharedTotal& memory, Policy& policy);

}  // namespace pnode::bench
