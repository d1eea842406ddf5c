// The suites: which programs are run, and how.
#pragma once

#include <string>
#include <vector>

#include "bench/report/results.h"

namespace pnode::bench {

struct Suite {
    std::string name;
    std::string program;
    std::vector<std::string> arguments;        // besides --json
    std::vector<std::string> quick_arguments;  // instead
};

const std::vector<Suite>& suites();

// Runs the program, which lies in `folder`, to its end; its complaints go to standard error. Throws
// std::runtime_error when it fails, Interrupted on a signal.
std::vector<Run> run_suite(const Suite& suite, const std::string& folder, bool quick);

}  // namespace pnode::bench
