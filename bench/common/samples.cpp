#include "bench/common/samples.h"

#include <algorithm>
#include <numeric>

namespace pnode::bench {
namespace {

using Latencies = std::vector<std::uint32_t>;

Latencies::iterator place_of(Latencies& values, double fraction) {
    return values.begin() + static_cast<std::ptrdiff_t>(fraction * static_cast<double>(values.size() - 1));
}

double percentile(Latencies& values, double fraction) {
    const auto place = place_of(values, fraction);
    std::nth_element(values.begin(), place, values.end());
    return *place;
}

double mean(Latencies::iterator begin, Latencies::iterator end) {
    return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
}

double median_of(const std::vector<Round>& rounds, double Round::*field) {
    std::vector<double> values;
    for (const Round& round : rounds) values.push_back(round.*field);
    return median(std::move(values));
}

double ratio(const std::vector<Round>& a, const std::vector<Round>& b, double Round::*field) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
        if (b[i].*field > 0) ratios.push_back(a[i].*field / b[i].*field);
    return median(std::move(ratios));
}

}  // namespace

Round summarize(std::vector<std::uint32_t>& latencies_ns, std::uint64_t operations, std::uint64_t wall_ns) {
    if (latencies_ns.empty() || wall_ns == 0) return {};
    Round round;
    round.p50_ns = percentile(latencies_ns, 0.50);
    round.p99_ns = percentile(latencies_ns, 0.99);  // leaves the faster 99 % in front
    round.mean_ns = mean(latencies_ns.begin(), latencies_ns.end());
    round.usual_ns = mean(latencies_ns.begin(), place_of(latencies_ns, 0.99) + 1);
    round.per_s = static_cast<double>(operations) * 1e9 / static_cast<double>(wall_ns);
    std::sort(latencies_ns.begin(), latencies_ns.end());
    for (std::size_t i = 0; i < latency_percents.size(); ++i)
        round.percentiles_ns[i] = *place_of(latencies_ns, latency_percents[i] / 100);
    return round;
}

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double quantile(std::vector<double> values, double share) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

double spread(const std::vector<double>& values) {
    if (values.size() < 2) return 0;
    auto [low, high] = std::minmax_element(values.begin(), values.end());
    return (*high - *low) / median(values);
}

Round median(const std::vector<Round>& rounds) {
    Round middle;
    for (double Round::*field :
         {&Round::p50_ns, &Round::p99_ns, &Round::mean_ns, &Round::per_s, &Round::usual_ns})
        middle.*field = median_of(rounds, field);
    for (std::size_t i = 0; i < latency_percents.size(); ++i) {
        std::vector<double> values;
        for (const Round& round : rounds) values.push_back(round.percentiles_ns[i]);
        middle.percentiles_ns[i] = median(std::move(values));
    }
    return middle;
}

double spread_per_s(const std::vector<Round>& rounds) {
    std::vector<double> values;
    for (const Round& round : rounds) values.push_back(round.per_s);
    return spread(values);
}

double ratio_per_s(const std::vector<Round>& a, const std::vector<Round>& b) {
    return ratio(a, b, &Round::per_s);
}

double ratio_usual_ns(const std::vector<Round>& a, const std::vector<Round>& b) {
    return ratio(a, b, &Round::usual_ns);
}

}  // namespace pnode::bench
