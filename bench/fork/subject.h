// The process that forks: this very program, started plain or under the preload library. It fills its memory,
// then forks once for each line of standard input, and says how long that took.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/common/own_process.h"

namespace pnode::bench {

// Runs as the subject, until standard input ends; its exit code. `anonymous_bytes_max`: it waits until so
// much of what it filled has left that no more is resident; 0 does not wait.
int run_subject(std::size_t bytes, std::size_t anonymous_bytes_max);

// One fork, by the monotonic clock of the machine.
struct ForkTimes {
    double parent_ns;  // from before fork() to after it, in the parent
    double child_ns;   // from before fork() in the parent to after it in the child
    double reaped_ns;  // from before fork() until the child, which ends at once, was waited for
};

class Subject {
  public:
    // Starts it and waits until it is filled. `wrapper` is what goes before this program's name. Throws
    // std::runtime_error.
    Subject(const std::vector<std::string>& wrapper, std::size_t bytes, std::size_t anonymous_bytes_max);

    ForkTimes fork_once();
    // Resident anonymous memory when it was filled.
    std::size_t anonymous_bytes() const { return anonymous_bytes_; }

  private:
    OwnProcess process_;
    std::size_t anonymous_bytes_ = 0;
};

}  // namespace pnode::bench
