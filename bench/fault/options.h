// The command line of pnode-bench-fault.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pnode::bench {

struct FaultOptions {
    std::size_t pages = 16384;
    int rounds = 5;
    std::vector<int> threads = {1, 2};
    std::vector<std::string> cases;  // empty: all
    bool json = false;

    // True for every name that starts with one of `cases`: "far" selects far-random and far-sequential.
    bool selects(const std::string& name) const;
    nlohmann::ordered_json as_json() const;
};

inline const std::vector<std::string> fault_case_names = {
    "fresh-random",     "fresh-sequential",      "far-random", "far-sequential", "demote",
    "demote-unchanged", "demote-unchanged-again"};

// True with `options` filled in; otherwise the program ends with `*exit_code` (help, or one line about a bad
// value).
bool parse_fault_options(int count, char** arguments, FaultOptions* options, int* exit_code);

}  // namespace pnode::bench
