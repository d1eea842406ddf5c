// The command line of pnode-bench-redis.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pnode::bench {

struct RedisOptions {
    std::uint64_t dataset_bytes = std::uint64_t{400}
                                  << 20;  // values' bytes to reach by repeating the catalogue
    std::uint64_t repeat = 0;             // or how often to repeat it; 0: as dataset_bytes says
    int rounds = 15;
    std::uint64_t requests =
        200'000;  // timed, per workload, variant and round; four times as many before them to warm up
    int connections = 50;
    int pipeline = 16;
    int near_percent = 48;
    std::string codec = "lz4";     // of the servers under pnode
    std::uint64_t sample = 5'000;  // values compared byte for byte in each server at the end
    std::string pnode;             // path of the command; empty: beside this program
    std::string redis_server = "redis-server";
    bool json = false;
    std::vector<std::string> cases, variants;  // empty: all

    // True for every workload or variant whose name starts with one that was asked for.
    bool selects_case(const std::string& name) const;
    bool selects_variant(const std::string& name) const;
    nlohmann::ordered_json as_json() const;
};

// True with `options` filled in; otherwise the program ends with `*exit_code` (help, or one line about a bad
// value).
bool parse_redis_options(int count, char** arguments, RedisOptions* options, int* exit_code);

}  // namespace pnode::bench
