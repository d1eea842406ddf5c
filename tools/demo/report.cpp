#include "tools/demo/report.h"

#include <algorithm>
#include <cstdio>

namespace pnode::demo {
namespace {

std::string fixed(double value, int digits, const char* unit) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*f%s", digits, value, unit);
    return text;
}

std::string row(const std::string& name, const std::string& value) {
    constexpr std::size_t kNameWidth = 37;
    return "  " + name + std::string(kNameWidth - std::min(kNameWidth, name.size()), ' ') + value + "\n";
}

std::string quotient(std::uint64_t dividend, std::uint64_t divisor) {
    if (divisor == 0) return "-";
    return fixed(static_cast<double>(dividend) / static_cast<double>(divisor), 2, "");
}

// All the node holds counts; blobs that near pages keep, to leave again for nothing, are told apart.
std::string ratio(const pn_stats_t& statistics) {
    const std::uint64_t kept = std::min(statistics.kept_blob_bytes, statistics.far_bytes);
    return quotient(statistics.far_logical_bytes, statistics.far_bytes) + "  (" +
           quotient(statistics.far_logical_bytes, statistics.far_bytes - kept) + " without " +
           mebibytes(kept) + " kept for near pages)";
}

// A memory: node is DRAM too: this is what the tiered heap takes in all.
std::string together(const Result& result) {
    const std::uint64_t bytes = result.statistics.near_bytes + result.statistics.far_bytes;
    const double share =
        static_cast<double>(bytes) / static_cast<double>(std::max<std::uint64_t>(result.heap_bytes, 1));
    return mebibytes(bytes) + "  (" + fixed(share * 100, 0, " % of near-only)");
}

std::string requests(const Result& result) {
    return grouped(static_cast<std::uint64_t>(result.near_only_per_s)) + " / " +
           grouped(static_cast<std::uint64_t>(result.tiered_per_s)) + "  (" +
           fixed(result.tiered_per_s / result.near_only_per_s, 2, "") + ")";
}

}  // namespace

std::string mebibytes(std::uint64_t bytes) {
    return fixed(static_cast<double>(bytes) / (1 << 20), 1, " MiB");
}

std::string grouped(std::uint64_t number) {
    std::string text = std::to_string(number);
    for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
    return text;
}

std::string microseconds(std::uint64_t nanoseconds) {
    return fixed(static_cast<double>(nanoseconds) / 1000, 1, " us");
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

std::string table(const Result& result) {
    const pn_stats_t& now = result.statistics;
    return row("records", grouped(result.records)) +                       //
           row("dataset", mebibytes(result.dataset_bytes)) +               //
           row("heap it needs near-only", mebibytes(result.heap_bytes)) +  //
           row("near limit",
               mebibytes(result.near_limit_bytes) + "  (" + std::to_string(result.near_percent) + " %)") +  //
           row("near now / peak", mebibytes(now.near_bytes) + " / " + mebibytes(now.near_bytes_peak)) +     //
           row("far, physical",
               mebibytes(now.far_bytes) + "  for " + mebibytes(now.far_logical_bytes) + " of pages") +  //
           row("ratio", ratio(now)) +                                                                   //
           row("near + far, physical", together(result)) +                                              //
           row("Rss near-only / peak tiered",
               mebibytes(result.resident_near_only_bytes) + " / " +
                   mebibytes(result.resident_peak_bytes)) +  //
           row("demotions / promotions",
               grouped(now.demotions) + " / " + grouped(now.promotions) + " pages") +  //
           row("fault p50 / p99",
               microseconds(now.fault_p50_ns) + " / " + microseconds(now.fault_p99_ns)) +  //
           row("GETs per second near-only / tiered", requests(result)) +                   //
           row("records compared / different", grouped(result.compared) + " / " + grouped(result.different));
}

}  // namespace pnode::demo
