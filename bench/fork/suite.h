// What a fork costs under the preload library, against the same process without it at the same resident size.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace pnode::bench {

struct ForkOptions {
    std::size_t near_bytes = std::size_t{256} << 20;  // resident anonymous memory of each process
    int far_percent = 60;                             // of all of its memory, in the variant that has some
    int rounds = 60;
    bool json = false;
    std::string pnode;  // the command
};

void run_fork_suite(const ForkOptions& options);

}  // namespace pnode::bench
