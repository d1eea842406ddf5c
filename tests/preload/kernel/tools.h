// Small things that many cases need.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <string>
#include <thread>
#include <utility>

#include "tests/preload/kernel/cases.h"

namespace kernel_access {

class Fd {
  public:
    explicit Fd(long fd = -1) : fd_(static_cast<int>(fd)) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd() { reset(); }
    operator int() const { return fd_; }
    void reset() {
        if (fd_ >= 0) close(fd_);
        fd_ = -1;
    }

  private:
    int fd_;
};

struct Ends {
    Fd out;  // read here
    Fd in;   // write here
};

inline Ends new_pipe(int flags = O_CLOEXEC) {
    int ends[2] = {-1, -1};
    if (pipe2(ends, flags) != 0) std::abort();
    return {Fd(ends[0]), Fd(ends[1])};
}

inline Ends new_socketpair(int type) {
    int ends[2] = {-1, -1};
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    return {Fd(ends[0]), Fd(ends[1])};
}

// A folder of this process, emptied by nobody else; gone when the process ends.
const std::string& scratch_folder();

// A nameless file there.
inline Fd scratch_file(int flags = 0) {
    std::string path = scratch_folder() + "/XXXXXX";
    const int fd = mkostemp(path.data(), O_CLOEXEC | flags);
    if (fd >= 0) unlink(path.c_str());
    return Fd(fd);
}

// A nameless file of text.
Fd text_file(std::size_t bytes, unsigned seed = 5);

void wait_until_asleep(const std::atomic<int>& thread_id);

// Does `wake` once `call`, on a thread of its own, sleeps in the kernel and its pages were asked to leave
// again. The call's result and errno.
template <class Call, class Wake>
long while_asleep(Memory& memory, Call call, Wake wake) {
    std::atomic<int> thread_id = 0;
    long result = 0;
    int error = 0;
    std::thread sleeper([&] {
        thread_id = gettid();
        result = call();
        error = errno;
    });
    wait_until_asleep(thread_id);
    memory.nudge();
    wake();
    sleeper.join();
    errno = error;
    return result;
}

// The exit status of `child`, a process; -1 when it did not exit.
inline int exit_status(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) == -1 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace kernel_access
