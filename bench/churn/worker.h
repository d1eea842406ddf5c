// One variant in a process of its own, so that a control group can hold it and its CPU time is its own. It
// does what it is told, one order at a time, and sleeps in between.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "bench/churn/accesses.h"
#include "bench/churn/subject.h"
#include "bench/common/samples.h"

namespace pnode::bench {

struct Order {
    enum Kind : std::uint32_t { fill, limit, run, verify } kind = fill;
    Mix mix = Mix::read_uniform;    // run
    int threads = 1;                // run
    std::uint64_t accesses = 0;     // run
    std::uint64_t wall_ns_min = 0;  // run, of reads alone: repeated until so much time has passed
    std::uint64_t seed = 0;         // run
    Subject::Limits limits = {};    // limit; run: what `steady` must fit into
};

struct Answer {
    bool failed = false;
    char message[250] = {};  // when it failed
    Round round;             // run
    double cpu_ns = 0;       // run: of the whole process, an access
    // run: of threads that are not the accessing ones, in percent of one CPU
    double background_cpu_percent = 0;
    Subject::Usage usage;
};

// The child is gone; what() says how it ended.
struct WorkerEnded : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Worker {
  public:
    // Forks: make all workers before there are threads. `text` is shared with the child.
    Worker(const std::string& engine, std::size_t pages, const std::string& text);
    // Ends the process.
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    pid_t process() const { return child_; }
    // Throws std::runtime_error with the child's reason, or WorkerEnded.
    Answer obey(const Order& order);

  private:
    std::string how_it_ended();
    int socket_ = -1;
    pid_t child_ = -1;
};

}  // namespace pnode::bench
