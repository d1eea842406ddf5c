// pnode run: starts a program with pnode's library preloaded.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace pnode::tools {

struct RunRequest {
    // Variables to set, checked already.
    std::vector<std::pair<std::string, std::string>> environment;
    std::vector<std::string> command;  // the program and its arguments
};

// Becomes the program, so that exit code and signals are its own. Returns only when it cannot: an exit code,
// after one line on standard error.
int run(const RunRequest& request);

}  // namespace pnode::tools
