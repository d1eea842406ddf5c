// A program that is started, filled with data until it says that it is ready, looked at, and ended.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "bench/common/temporary_directory.h"

namespace pnode::bench {

// What its heap is full of, and how it gets there.
struct LiveProgramPlan {
    std::string name;                  // of the corpus
    std::vector<std::string> command;  // PORT and FOLDER in it are replaced
    std::string input;  // written to it: to its port where the command has one, else to its input
    std::string ready;  // it is filled when it has said this as often as `ready_times`
    std::size_t ready_times = 1;
    std::string source;
};

class LiveProgram {
  public:
    // Throws std::runtime_error when it cannot be started, ends, or is not ready in a minute.
    explicit LiveProgram(LiveProgramPlan plan);
    ~LiveProgram();
    LiveProgram(const LiveProgram&) = delete;
    LiveProgram& operator=(const LiveProgram&) = delete;
    pid_t process() const { return process_; }

  private:
    void start(std::vector<std::string> command);
    void connect_to(int port);
    void fill();
    void end() noexcept;

    LiveProgramPlan plan_;
    TemporaryDirectory folder_;
    pid_t process_ = -1;
    int input_ = -1, output_ = -1;  // the same where it is a socket
};

}  // namespace pnode::bench
