// The command line of pnode-bench-policy.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pnode::bench {

struct PolicyOptions {
    std::uint32_t pages = 20'000;
    std::size_t accesses = 1'000'000;
    std::vector<int> near_percents = {48, 70};
    std::vector<std::string> traces;  // made-up ones by name; empty: all
    std::vector<std::string> files;   // recorded ones; "-" is standard input
    // Of the near pages, how many may keep their blob: 100 with a far limit that is not reached; without a
    // far limit kept blobs may take an eighth of the near bytes, 29 % of the pages at a ratio of 2.3.
    std::vector<int> kept_percents = {100};
    bool levels = false;  // compare parameters of the levels instead of policies
    // Compare which near pages keep their blobs instead, near pages and all blobs sharing so much.
    std::vector<int> total_percents;
    int blob_percent = 50;  // what a blob takes of its page
    bool json = false;

    nlohmann::ordered_json as_json() const;
};

// True with `options` filled in; otherwise the program ends with `*exit_code` (help, or one line about a bad
// value).
bool parse_policy_options(int count, char** arguments, PolicyOptions* options, int* exit_code);

}  // namespace pnode::bench
