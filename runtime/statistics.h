// Counters of a heap, one atomic per row of PN_STATS_LIST, and a histogram of fault times.
//
// Thread rule: any thread, any context; relaxed: the numbers are for people, nothing is ordered by them.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

#include "pnode/pnode.h"

namespace pnode {

class Counter {
  public:
    void add(std::uint64_t amount = 1) noexcept { value_.fetch_add(amount, std::memory_order_relaxed); }
    void subtract(std::uint64_t amount) noexcept { value_.fetch_sub(amount, std::memory_order_relaxed); }
    std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }
    void raise_to(std::uint64_t amount) noexcept {
        std::uint64_t seen = value();
        while (seen < amount && !value_.compare_exchange_weak(seen, amount, std::memory_order_relaxed)) {
        }
    }

  private:
    std::atomic<std::uint64_t> value_{0};
};

// Powers of two, each in eight equal parts: within 12.5 %.
class Histogram {
  public:
    void record(std::uint64_t value) noexcept { buckets_[bucket_of(value)].add(); }
    // 0 when nothing was recorded. `percent` of 0 to 100.
    std::uint64_t percentile(double percent) const noexcept {
        std::uint64_t total = 0;
        for (const Counter& bucket : buckets_) total += bucket.value();
        auto wanted = static_cast<std::uint64_t>(static_cast<double>(total) * percent / 100.0);
        for (unsigned bucket = 0; bucket < buckets_.size(); ++bucket) {
            const std::uint64_t here = buckets_[bucket].value();
            if (here > wanted) return value_of(bucket);
            wanted -= here;
        }
        return 0;
    }

  private:
    static constexpr unsigned parts_log2 = 3;
    static unsigned bucket_of(std::uint64_t value) noexcept {
        if (value < (1u << parts_log2)) return static_cast<unsigned>(value);
        const unsigned log = static_cast<unsigned>(std::bit_width(value)) - 1;
        const unsigned part = static_cast<unsigned>(value >> (log - parts_log2)) & ((1u << parts_log2) - 1);
        const unsigned bucket = ((log - parts_log2 + 1) << parts_log2) + part;
        return bucket < buckets_max ? bucket : buckets_max - 1;
    }
    static std::uint64_t value_of(unsigned bucket) noexcept {
        if (bucket < (1u << parts_log2)) return bucket;
        const unsigned log = (bucket >> parts_log2) + parts_log2 - 1;
        const std::uint64_t part = bucket & ((1u << parts_log2) - 1);
        return (std::uint64_t{1} << log) + (part << (log - parts_log2)) +
               ((std::uint64_t{1} << (log - parts_log2)) >> 1);
    }
    static constexpr unsigned buckets_max = 38 << parts_log2;  // up to about 100 s in ns
    std::array<Counter, buckets_max> buckets_;
};

// The monotonic rows; gauges are computed when they are asked for.
struct Statistics {
    Counter near_pages_peak;
    Counter demotions, demotions_unchanged, demotions_zero, promotions, limbo_returns, released_pages,
        incompressible, refused_pinned, far_full, faults, faults_fresh, faults_redundant, poisoned,
        evictions_direct, evictions_in_place, fork_events, prefetches, prefetches_dropped, recompressed,
        dictionaries_trained, recompression_cpu_ns, promotions_ahead, blobs_moved, packing_cpu_ns;
    Counter kept_blob_bytes;                       // gauge, kept up to date where blobs are kept and dropped
    Counter far_pages, limbo_pages, pinned_pages;  // gauges
    Histogram fault_ns;
};

}  // namespace pnode
