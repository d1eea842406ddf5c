#include "bench/common/samples.h"

#include <algorithm>
#include <numeric>

namespace pnode::bench {
namespace {

double percentile(std::vector<std::uint32_t>& values, double fraction) {
    auto place =
        values.begin() + static_cast<std::ptrdiff_t>(fraction * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), place, values.end());
    return *place;
}

double median_of(const std::vector<Round>& rounds, double Round::*field) {
    std::vector<double> values;
    for (const Round& round : rounds) values.push_back(round.*field);
    return median(std::move(values));
}

}  // namespace

Round summarize(std::vector<std::uint32_t>& latencies_ns, std::uint64_t operations, std::uint64_t wall_ns) {
    if (latencies_ns.empty() || wall_ns == 0) return {};
    const double total = std::accumulate(latencies_ns.begin(), latencies_ns.end(), 0.0);
    return {percentile(latencies_ns, 0.50), percentile(latencies_ns, 0.99),
            total / static_cast<double>(latencies_ns.size()),
            static_cast<double>(operations) * 1e9 / static_cast<double>(wall_ns)};
}

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double spread(const std::vector<double>& values) {
    if (values.size() < 2) return 0;
    auto [low, high] = std::minmax_element(values.begin(), values.end());
    return (*high - *low) / median(values);
}

Round median(const std::vector<Round>& rounds) {
    return {median_of(rounds, &Round::p50_ns), median_of(rounds, &Round::p99_ns),
            median_of(rounds, &Round::mean_ns), median_of(rounds, &Round::per_s)};
}

double spread_per_s(const std::vector<Round>& rounds) {
    std::vector<double> values;
    for (const Round& round : rounds) values.push_back(round.per_s);
    return spread(values);
}

double ratio_per_s(const std::vector<Round>& a, const std::vector<Round>& b) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
        if (b[i].per_s > 0) ratios.push_back(a[i].per_s / b[i].per_s);
    return median(std::move(ratios));
}

}  // namespace pnode::bench
