// What a run found, and its printing as tables or JSON lines.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bench/common/samples.h"
#include "bench/redis/dataset.h"
#include "bench/redis/options.h"

namespace pnode::bench {

// What a workload's rounds, one like the other, took of a server.
struct Effort {
    double cpu_us = 0;      // a request; all threads, the kernel's share included
    double misses = 0;      // a request: pages that were brought near; on zram those that came back from swap
    double dram_bytes = 0;  // afterwards: its Rss and, for zram, what the device takes
};

struct VariantResult {
    std::string name;  // "plain", "pnode-near", "pnode-small", "pnode-kept", "zram-small", "pnode-total"
    std::map<Workload, std::vector<Round>> rounds;
    std::map<Workload, Effort> efforts;
    std::uint64_t limit_bytes =
        0;                        // given to pnode as near limit, to the control group as its limit; 0: none
    std::uint64_t rss_bytes = 0;  // at the end, as the kernel counts the process
    std::uint64_t anonymous_bytes = 0;  // resident at the end
    std::uint64_t verified = 0;         // values compared byte for byte
    std::string statistics;             // pnode's, one JSON object; "" where there are none
};

struct RedisReport {
    std::string dataset;
    std::uint32_t keys = 0;
    std::uint64_t value_bytes = 0;
    std::uint64_t need_bytes = 0;  // anonymous memory of the plain server after loading
    std::uint64_t need_rss_bytes = 0;
    std::uint64_t group_extra_bytes = 0;  // what a control group charges beyond anonymous memory
    std::string group_version;
    std::vector<VariantResult> variants;
    int near_percent = 0;  // of the need, for the variants called small
    std::vector<std::string> notes;

    const VariantResult* find(const std::string& beginning) const;
    void print_json(const RedisOptions& options) const;
    void print_tables() const;
};

}  // namespace pnode::bench
