#include "tools/demo/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "tools/demo/failure.h"
#include "tools/demo/redis_client.h"

namespace pnode::demo {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kReadyTimeout{20};
constexpr int kAskAgainMilliseconds = 20;
constexpr int kStopMilliseconds = 5000;
constexpr int kPortAttempts = 5;
constexpr std::size_t kLogLines = 8;
constexpr std::size_t kCrashLines = 40;  // room for a stack trace
constexpr int kExecFailed = 127;

std::string reason(int error) {
    return std::generic_category().message(error);
}

// Another program may take the port before our server binds it: the constructor then tries again with another
// one.
int free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    const bool bound =
        fd >= 0 && ::bind(fd, generic, length) == 0 && ::getsockname(fd, generic, &length) == 0;
    const int error = errno;
    if (fd >= 0) ::close(fd);
    if (!bound)
        throw Failure("no free port on 127.0.0.1 (" + reason(error) +
                      "): is the loopback interface up? `ip link set lo up`");
    return ntohs(address.sin_port);
}

std::vector<std::string> redis_options(int port, const std::string& folder) {
    return {"--port", std::to_string(port), "--bind", "127.0.0.1",   "--dir", folder, "--save",
            "",       "--appendonly",       "no",     "--daemonize", "no"};
}

// Runs in the child between fork and exec: async-signal-safe calls only.
[[noreturn]] void become(char* const* arguments, int log_fd, pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(kExecFailed);  // it died before the line above could take effect
    ::setpgid(0, 0);             // Ctrl-C is for the demonstration, which then ends its servers itself
    ::signal(SIGPIPE, SIG_DFL);  // we ignore it; the server starts as anything else does
    const int null_fd = ::open("/dev/null", O_RDONLY);
    ::dup2(null_fd, STDIN_FILENO);
    ::dup2(log_fd, STDOUT_FILENO);
    ::dup2(log_fd, STDERR_FILENO);
    ::execv(arguments[0], arguments);
    static constexpr char kMessage[] = "exec failed\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
    ::_exit(kExecFailed);
}

// What a log says of its end: from the start of Redis's own crash report on, or its last lines.
std::string last_lines(const std::string& path) {
    std::ifstream file(path);
    std::deque<std::string> lines;
    bool crashed = false;
    for (std::string line; std::getline(file, line);) {
        crashed = crashed || line.find("REDIS BUG REPORT START") != std::string::npos;
        if (crashed && lines.size() >= kCrashLines) break;
        lines.push_back("  | " + line);
        if (!crashed && lines.size() > kLogLines) lines.pop_front();
    }
    std::string out;
    for (const std::string& line : lines) out += "\n" + line;
    return out;
}

bool log_tells_of_taken_port(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str().find("Address already in use") != std::string::npos;
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
    const char* root = std::getenv("TMPDIR");
    path_ = std::string(root && *root ? root : "/tmp") + "/pnode-demo-XXXXXX";
    if (!::mkdtemp(path_.data())) {
        throw Failure("no folder " + path_ + " (" + reason(errno) +
                      "): set TMPDIR to a folder that can be written");
    }
}

TemporaryFolder::~TemporaryFolder() {
    std::error_code ignored;  // what cannot be removed is left to the system's cleaning of temporary files
    std::filesystem::remove_all(path_, ignored);
}

std::string find_program(const std::string& name) {
    if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : std::string();
    const char* path = std::getenv("PATH");
    std::istringstream folders(path ? path : "/usr/bin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
        std::string candidate = folder + "/" + name;
        if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    return {};
}

Server::Server(std::string label, std::vector<std::string> command, std::string folder)
    : label_(std::move(label)), command_(std::move(command)), folder_(std::move(folder)) {
    for (int attempt = 1;; ++attempt) {
        try {
            start();
            wait_until_ready();
            return;
        } catch (const Failure&) {
            stop();
            if (attempt == kPortAttempts || !log_tells_of_taken_port(log_path())) throw;
        } catch (...) {
            stop();
            throw;
        }
    }
}

Server::~Server() {
    stop();
}

void Server::start() {
    port_ = free_port();
    std::vector<std::string> words = command_;
    for (std::string& option : redis_options(port_, folder_)) words.push_back(std::move(option));
    std::vector<char*> arguments;
    arguments.reserve(words.size() + 1);
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);

    const int log_fd = ::open(log_path().c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log_fd < 0)
        throw Failure("cannot write " + log_path() + " (" + reason(errno) +
                      "): set TMPDIR to a folder with room");
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) become(arguments.data(), log_fd, parent);
    const int error = errno;
    ::close(log_fd);
    if (pid_ < 0)
        throw Failure("cannot fork (" + reason(error) +
                      "): raise the process or memory limit, see `ulimit -a`");
    pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
    if (pidfd_ < 0) throw Failure("pidfd_open: " + reason(errno) + ": a kernel of 5.3 or later is needed");
}

void Server::wait_until_ready() {
    const auto deadline = steady_clock::now() + kReadyTimeout;
    while (!answers()) {
        throw_if_interrupted();
        if (ended_within(kAskAgainMilliseconds))
            throw Failure("the " + label_ + " redis-server did not start: " + autopsy());
        if (steady_clock::now() > deadline) {
            throw Failure("the " + label_ + " redis-server did not answer on 127.0.0.1:" +
                          std::to_string(port_) + " for " + std::to_string(kReadyTimeout.count()) +
                          " s: is a firewall in the way?" + last_lines(log_path()));
        }
    }
}

// Whoever answers must be our child: another server may have taken the port in between.
bool Server::answers() {
    try {
        return RedisClient(port_).process_id() == pid_;
    } catch (const ConnectionLost&) {
        return false;
    }
}

bool Server::ended_within(int milliseconds) {
    if (pid_ < 0) return true;
    pollfd wait = {pidfd_, POLLIN, 0};
    if (::poll(&wait, 1, milliseconds) <= 0) return false;
    ::waitpid(pid_, &exit_status_, 0);
    ::close(pidfd_);
    pid_ = pidfd_ = -1;
    return true;
}

void Server::stop() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGTERM);
    if (pidfd_ >= 0 && ended_within(kStopMilliseconds)) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &exit_status_, 0);
    if (pidfd_ >= 0) ::close(pidfd_);
    pid_ = pidfd_ = -1;
}

std::string Server::autopsy() {
    constexpr int kBrokenConnectionToExitMilliseconds =
        2000;  // the socket closes a little before the process is gone
    std::string out = "it runs, but does not answer";
    if (ended_within(kBrokenConnectionToExitMilliseconds)) {
        out = WIFSIGNALED(exit_status_)
                  ? std::string("it was ended by signal ") + ::strsignal(WTERMSIG(exit_status_))
                  : "it ended with exit code " + std::to_string(WEXITSTATUS(exit_status_));
    }
    return out + "; the last lines of its log:" + last_lines(log_path());
}

}  // namespace pnode::demo
