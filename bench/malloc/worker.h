// A process with one allocator in it, which runs workloads as it is asked to.
#pragma once

#include <string>
#include <vector>

#include "bench/common/own_process.h"
#include "bench/malloc/workloads.h"

namespace pnode::bench {

// Runs as the worker until standard input ends; its exit code.
int run_worker();

class Worker {
  public:
    // `wrapper` is what goes before this program's name. Throws std::runtime_error, if the process does not
    // have that allocator, too: a library that cannot be preloaded is passed over in silence.
    Worker(const std::vector<std::string>& wrapper, const std::string& allocator);

    // Allocations a second of all threads. Throws std::runtime_error.
    double run(const Workload& workload, const Load& load, unsigned threads);

  private:
    OwnProcess process_;
};

}  // namespace pnode::bench
