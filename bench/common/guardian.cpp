#include "bench/common/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <system_error>

namespace pnode::bench {
namespace {

constexpr std::size_t message_bytes = 256;  // below PIPE_BUF: written and read whole
using Message = std::array<char, message_bytes>;

std::string last_told;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// Returns when the parent says "end" (an empty message) or is gone. The pipe alone cannot tell that it is
// gone: children made later hold copies of its write end.
void wait_for_end(int pipe, int parent) {
    for (;;) {
        pollfd watched[] = {{pipe, POLLIN, 0}, {parent, POLLIN, 0}};
        if (poll(watched, 2, -1) < 0) continue;
        if (watched[0].revents & POLLIN) {
            Message message = {};
            ssize_t got = read(pipe, message.data(), message.size());
            if (got != static_cast<ssize_t>(message.size()) || message[0] == '\0') return;
            last_told.assign(message.data(), strnlen(message.data(), message.size()));
            continue;  // facts that wait in the pipe come before the parent's end
        }
        if (watched[0].revents || watched[1].revents) return;
    }
}

[[noreturn]] void be_guardian(const std::string& what, const std::function<std::string()>& teardown, int pipe,
                              int parent) {
    setsid();
    for (int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) signal(number, SIG_IGN);
    wait_for_end(pipe, parent);
    std::string problem = teardown();
    if (!problem.empty()) fprintf(stderr, "%s: %s\n", what.c_str(), problem.c_str());
    _exit(problem.empty() ? 0 : 1);
}

void send(int pipe, const std::string& text) {
    Message message = {};
    text.copy(message.data(), message.size() - 1);
    // Cannot block: the child reads all the time. A dead child is noticed when it is waited for.
    while (write(pipe, message.data(), message.size()) < 0 && errno == EINTR) {
    }
}

}  // namespace

Guardian::Guardian(std::string what, std::function<std::string()> teardown) : what_(std::move(what)) {
    // Through syscall(): glibc 2.36 declares pidfd_open without C linkage.
    const int parent = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
    if (parent < 0) fail("pidfd_open");
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        close(parent);
        fail("pipe2");
    }
    fflush(nullptr);
    child_ = fork();
    if (child_ == 0) {
        close(ends[1]);
        be_guardian(what_, teardown, ends[0], parent);
    }
    close(ends[0]);
    close(parent);
    if (child_ < 0) {
        close(ends[1]);
        fail("fork");
    }
    pipe_ = ends[1];
    signal(SIGPIPE, SIG_IGN);
}

Guardian::~Guardian() {
    send(pipe_, "");
    close(pipe_);
    int status = 0;
    while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status))
        fprintf(stderr, "%s: its guardian died; it may not be torn down\n", what_.c_str());
}

void Guardian::tell(const std::string& fact) {
    send(pipe_, fact);
}

const std::string& Guardian::told() {
    return last_told;
}

}  // namespace pnode::bench
