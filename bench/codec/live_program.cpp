#include "bench/codec/live_program.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <system_error>

#include "bench/common/free_port.h"
#include "bench/common/interrupt.h"
#include "bench/common/samples.h"

namespace pnode::bench {
namespace {

constexpr std::uint64_t patience_ns = 60'000'000'000;
constexpr useconds_t attempt_us = 10'000;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

bool replace(std::vector<std::string>& command, const std::string& word, const std::string& by) {
    bool found = false;
    for (std::string& part : command)
        if (const std::size_t at = part.find(word); at != std::string::npos) {
            part.replace(at, word.size(), by);
            found = true;
        }
    return found;
}

// Between fork and exec: plain system calls only.
[[noreturn]] void become(char* const* command, int input, int output, pid_t parent) {
    setsid();  // the terminal's interrupt is for the benchmark, which ends the program
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    signal(SIGPIPE, SIG_DFL);
    dup2(input, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    const int nowhere = open("/dev/null", O_WRONLY);
    if (nowhere >= 0) dup2(nowhere, STDERR_FILENO);
    execvp(command[0], command);
    _exit(127);
}

std::size_t count_of(const std::string& text, const std::string& word) {
    std::size_t count = 0;
    for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += word.size()) ++count;
    return count;
}

}  // namespace

LiveProgram::LiveProgram(LiveProgramPlan plan)
    : plan_(std::move(plan)), folder_("pnode-bench-" + plan_.name) {
    const int port = free_port();
    const bool has_port = replace(plan_.command, "PORT", std::to_string(port));
    replace(plan_.command, "FOLDER", folder_.path());
    try {
        start(plan_.command);
        if (has_port) connect_to(port);
        fill();
    } catch (...) {
        end();
        throw;
    }
}

LiveProgram::~LiveProgram() {
    end();
}

void LiveProgram::start(std::vector<std::string> command) {
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) != 0) fail("pipe2");
    if (pipe2(out, O_CLOEXEC) != 0) fail("pipe2");
    const pid_t parent = getpid();
    process_ = fork();
    if (process_ == 0) become(arguments.data(), in[0], out[1], parent);
    close(in[0]);
    close(out[1]);
    input_ = in[1];
    output_ = out[0];
    if (process_ < 0) fail("fork");
}

void LiveProgram::connect_to(int port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    for (const std::uint64_t begun = now_ns(); now_ns() - begun < patience_ns; usleep(attempt_us)) {
        throw_if_interrupted();
        if (waitpid(process_, nullptr, WNOHANG) == process_) {
            process_ = -1;
            throw std::runtime_error(plan_.command[0] + " ended at once");
        }
        const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connection < 0) fail("socket");
        if (connect(connection, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
            close(input_);
            close(output_);
            input_ = output_ = connection;
            return;
        }
        close(connection);
    }
    throw std::runtime_error(plan_.command[0] + " does not listen");
}

// Writes and reads at once: neither side may wait for the other's buffer.
void LiveProgram::fill() {
    fcntl(input_, F_SETFL, fcntl(input_, F_GETFL) | O_NONBLOCK);
    std::size_t written = 0, ready = 0;
    std::string tail;
    std::string part(65536, '\0');
    const std::uint64_t begun = now_ns();
    while (ready < plan_.ready_times) {
        throw_if_interrupted();
        if (now_ns() - begun > patience_ns)
            throw std::runtime_error(plan_.command[0] + " is not ready in a minute");
        pollfd watched[] = {{output_, POLLIN, 0}, {written < plan_.input.size() ? input_ : -1, POLLOUT, 0}};
        if (poll(watched, 2, 1000) <= 0) continue;
        if (watched[1].revents & (POLLOUT | POLLERR)) {
            const ssize_t put = write(input_, plan_.input.data() + written, plan_.input.size() - written);
            if (put > 0) written += static_cast<std::size_t>(put);
            if (put < 0 && errno != EAGAIN && errno != EINTR) fail(plan_.command[0].c_str());
        }
        if (watched[0].revents == 0) continue;
        const ssize_t got = read(output_, part.data(), part.size());
        if (got == 0) throw std::runtime_error(plan_.name + " ended (is it installed?)");
        if (got < 0) continue;
        tail.append(part, 0, static_cast<std::size_t>(got));
        ready += count_of(tail, plan_.ready);
        // What may be the beginning of another; a whole one has been counted.
        const std::size_t last = tail.rfind(plan_.ready);
        const std::size_t counted = last == std::string::npos ? 0 : last + plan_.ready.size();
        tail.erase(0, std::max(counted, tail.size() - std::min(tail.size(), plan_.ready.size() - 1)));
    }
}

void LiveProgram::end() noexcept {
    if (input_ >= 0) close(input_);
    if (output_ >= 0 && output_ != input_) close(output_);
    if (process_ <= 0) return;
    kill(process_, SIGKILL);  // it has nothing to save
    while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
    }
}

}  // namespace pnode::bench
