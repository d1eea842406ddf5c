// The command line of pnode-bench-churn.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pnode::bench {

struct ChurnOptions {
    std::size_t pages = 16384;
    std::size_t accesses = 60'000;  // timed, of all threads together, a round
    int rounds = 5;
    std::vector<int> threads = {1, 2};
    std::vector<int> near_percents = {50};
    std::vector<std::string> cases;  // empty: all
    bool json = false;

    // True for every name that starts with one of `cases`: "read" selects read-uniform and read-zipf.
    bool selects(const std::string& name) const;
    nlohmann::ordered_json as_json() const;
};

// True with `options` filled in; otherwise the program ends with `*exit_code` (help, or one line about a bad
// value).
bool parse_churn_options(int count, char** arguments, ChurnOptions* options, int* exit_code);

}  // namespace pnode::bench
