// Numbers of repeated measurements: latencies of one round, and medians with their spread over rounds.
#pragma once

#include <time.h>

#include <array>
#include <cstdint>
#include <vector>

namespace pnode::bench {

// About 25 ns a call where the clock is the time stamp counter.
inline std::uint64_t now_ns() noexcept {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

// Where a latency distribution is looked at, for plots.
inline constexpr std::array<double, 10> latency_percents = {1, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99};

// What one round of one variant gave. Plain data: it crosses processes as bytes.
struct Round {
    double p50_ns = 0;
    double p99_ns = 0;
    double mean_ns = 0;
    double per_s = 0;  // operations of all threads together, by the wall clock
    // Mean without the slowest 1 %: what the operation costs where other programs take the CPU away now and
    // then.
    double usual_ns = 0;
    std::array<double, latency_percents.size()> percentiles_ns = {};
};

// `latencies_ns` is reordered. With no latencies everything is 0.
Round summarize(std::vector<std::uint32_t>& latencies_ns, std::uint64_t operations, std::uint64_t wall_ns);

double median(std::vector<double> values);
// 0.25: the value that a quarter of them do not exceed. Of at least one.
double quantile(std::vector<double> values, double share);
// (largest - smallest) / median, 0 for fewer than two values.
double spread(const std::vector<double>& values);

// The medians, field by field.
Round median(const std::vector<Round>& rounds);
double spread_per_s(const std::vector<Round>& rounds);
// Median over rounds of a's per_s / b's in the same round: noise that lasts longer than a round cancels out.
// 0 without rounds.
double ratio_usual_ns(const std::vector<Round>& a, const std::vector<Round>& b);
double ratio_per_s(const std::vector<Round>& a, const std::vector<Round>& b);

}  // namespace pnode::bench
