// Forked children of the tests: what a child finds wrong is its exit code, and every wait for it is bounded.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <ostream>
#include <string>

namespace pnode::test {

// A child's answer. It may not use GoogleTest, whose output and failures belong to the parent.
enum class Verdict : int {
    good = 0,
    wrong_bytes = 11,
    wrong_fresh_bytes = 12,
    call_failed = 13,
    wrong_state = 14,
    limit_exceeded = 15,
    grandchild_failed = 16,
    told_wrong = 17,
    not_forked = 97,
    hung = 98,
    crashed = 99,
};

inline std::string name_of(Verdict verdict) {
    return "child verdict " + std::to_string(static_cast<int>(verdict));
}
inline void PrintTo(Verdict verdict, std::ostream* out) {
    *out << name_of(verdict);
}

// Ends what hangs, and nothing else: under two seconds of an emulated guest's work took one 30 seconds on a
// machine with other loads, and another more than 120. Each page that leaves by write protection interrupts
// the other processor, which may be waiting for one of the machine's.
inline constexpr int child_seconds_max = 280;

class Child {
  public:
    // Runs `body`, which returns a Verdict, in a forked child that ends with _exit().
    template <class Body>
    static Child start(Body&& body) {
        Child child;
        child.pid_ = fork();
        if (child.pid_ == 0) {
            alarm(child_seconds_max);  // ends it even if its parent is gone
            _exit(static_cast<int>(body()));
        }
        return child;
    }

    Child() = default;
    Child(Child&& other) noexcept : pid_(other.pid_) { other.pid_ = -1; }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    Child& operator=(Child&&) = delete;
    ~Child() {
        if (pid_ > 0) wait();
    }

    pid_t pid() const { return pid_; }

    // Reaps the child; one that does not end in time is killed.
    Verdict wait() {
        if (pid_ <= 0) return Verdict::not_forked;
        const bool ended = wait_for_end();
        if (!ended) kill(pid_, SIGKILL);
        int status = 0;
        while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
        pid_ = -1;
        if (!ended) return Verdict::hung;
        return WIFEXITED(status) ? static_cast<Verdict>(WEXITSTATUS(status)) : Verdict::crashed;
    }

  private:
    bool wait_for_end() const {
        const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
        if (fd < 0) return true;  // no pidfd: waitpid() and the child's own alarm bound the wait
        pollfd ended = {fd, POLLIN, 0};
        int ready = 0;
        do {
            ready = poll(&ended, 1, child_seconds_max * 1000);
        } while (ready < 0 && errno == EINTR);
        close(fd);
        return ready > 0;
    }

    pid_t pid_ = -1;
};

template <class Body>
Verdict verdict_of_child(Body&& body) {
    return Child::start(body).wait();
}

// A one-way door between parent and child: whoever passes waits until the other opens it, or is gone.
class Door {
  public:
    Door() {
        if (pipe(ends_) != 0) ends_[0] = ends_[1] = -1;
    }
    Door(const Door&) = delete;
    Door& operator=(const Door&) = delete;
    ~Door() {
        close(ends_[0]);
        close(ends_[1]);
    }
    // Lets `count` waiters pass.
    void open(int count = 1) {
        for (int i = 0; i < count; ++i) {
            while (write(ends_[1], "x", 1) < 0 && errno == EINTR) {
            }
        }
    }
    bool pass() {
        pollfd ready = {ends_[0], POLLIN, 0};
        int answer = 0;
        do {
            answer = poll(&ready, 1, child_seconds_max * 1000);
        } while (answer < 0 && errno == EINTR);
        char byte = 0;
        return answer > 0 && read(ends_[0], &byte, 1) == 1;
    }

  private:
    int ends_[2] = {-1, -1};
};

}  // namespace pnode::test
