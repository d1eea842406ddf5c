// Numbers as people read them, and the table at the end.
#pragma once

#include <pnode/pnode.h>

#include <cstdint>
#include <string>
#include <vector>

namespace pnode::demo {

std::string mebibytes(std::uint64_t bytes);           // "12.3 MiB"
std::string grouped(std::uint64_t number);            // "12,345"
std::string microseconds(std::uint64_t nanoseconds);  // "4.3 us"

// The middle value; of an even count, the lower of the two. `values` is not empty.
double median(std::vector<double> values);

struct Result {
    std::uint64_t records;
    std::uint64_t dataset_bytes;
    std::uint64_t heap_bytes;  // what the heap needs near-only
    std::uint64_t near_limit_bytes;
    unsigned near_percent;
    pn_stats_t statistics;
    std::uint64_t resident_peak_bytes;
    std::uint64_t resident_near_only_bytes;  // when all is loaded
    double near_only_per_s;
    double tiered_per_s;
    std::uint64_t compared;
    std::uint64_t different;
};

std::string table(const Result& result);

}  // namespace pnode::demo
