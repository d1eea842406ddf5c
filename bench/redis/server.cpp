#include "bench/redis/server.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include "bench/common/free_port.h"
#include "bench/common/interrupt.h"

namespace pnode::bench {
namespace {

constexpr int start_attempts = 1000, stop_attempts = 500, dying_attempts = 100;
constexpr useconds_t attempt_us = 10'000;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// Between fork and exec: plain system calls only.
[[noreturn]] void become(char* const* command, const char* output, int gate, pid_t parent) {
    char go = 0;
    // The gate opens when the parent has put this process where it belongs, and closes for good when the
    // parent is gone.
    if (read(gate, &go, 1) != 1) _exit(127);
    setsid();  // the terminal's interrupt is for the benchmark, which stops the server
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    signal(SIGPIPE, SIG_DFL);
    const int file = open(output, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || dup2(file, STDOUT_FILENO) < 0 || dup2(file, STDERR_FILENO) < 0) _exit(127);
    execvp(command[0], command);
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", command[0], strerror(errno));
    _exit(127);
}

}  // namespace

RedisServer::RedisServer(const std::string& program, const std::string& directory,
                         const std::vector<std::string>& wrapper, MemoryCgroup* group)
    : directory_(directory), port_(free_port()) {
    if (mkdir(directory.c_str(), 0700) != 0) fail("mkdir");
    std::vector<std::string> command = wrapper;
    for (const std::string& word :
         {program, std::string("--port"), std::to_string(port_), std::string("--bind"),
          std::string("127.0.0.1"), std::string("--save"), std::string(), std::string("--appendonly"),
          std::string("no"), std::string("--dir"), directory_, std::string("--daemonize"), std::string("no"),
          std::string("--loglevel"), std::string("warning")})
        command.push_back(word);
    try {
        start(std::move(command), group);
        wait_until_it_answers();
    } catch (...) {
        stop();
        throw;
    }
}

RedisServer::~RedisServer() {
    stop();
}

void RedisServer::start(std::vector<std::string> command, MemoryCgroup* group) {
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const std::string output = directory_ + "/output";
    int gate[2];
    if (pipe2(gate, O_CLOEXEC) != 0) fail("pipe2");
    const pid_t parent = getpid();
    process_ = fork();
    if (process_ == 0) {
        close(gate[1]);
        become(arguments.data(), output.c_str(), gate[0], parent);
    }
    close(gate[0]);
    try {
        if (process_ < 0) fail("fork");
        if (group) group->add(process_);
        if (write(gate[1], "g", 1) != 1) fail("write");
    } catch (...) {
        close(gate[1]);
        throw;
    }
    close(gate[1]);
}

void RedisServer::wait_until_it_answers() {
    for (int attempt = 0; attempt < start_attempts; ++attempt) {
        throw_if_interrupted();
        if (waitpid(process_, nullptr, WNOHANG) == process_) {
            process_ = -1;
            throw std::runtime_error("the server ended at once: " + last_words());
        }
        redisContext* connection = redisConnect("127.0.0.1", port_);
        void* reply = connection && !connection->err ? redisCommand(connection, "PING") : nullptr;
        const bool answers = reply != nullptr;
        if (reply) freeReplyObject(reply);
        if (connection) redisFree(connection);
        if (answers) return;
        usleep(attempt_us);
    }
    throw std::runtime_error("the server does not answer: " + last_words());
}

void RedisServer::stop() noexcept {
    if (process_ > 0) {
        kill(process_, SIGTERM);
        bool gone = false;
        for (int attempt = 0; attempt < stop_attempts && !gone; ++attempt) {
            gone = waitpid(process_, nullptr, WNOHANG) != 0;
            if (!gone) usleep(attempt_us);
        }
        if (!gone) {
            kill(process_, SIGKILL);
            while (waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
            }
        }
        process_ = -1;
    }
}

std::string RedisServer::condition() {
    int status = 0;
    std::string state = "it runs";
    for (int attempt = 0; attempt < dying_attempts && process_ > 0; ++attempt) {
        if (waitpid(process_, &status, WNOHANG) == process_) {
            process_ = -1;
            state = WIFSIGNALED(status) ? std::string("it was ended by signal ") + strsignal(WTERMSIG(status))
                                        : "it exited with " + std::to_string(WEXITSTATUS(status));
        } else {
            usleep(attempt_us);
        }
    }
    return state + "; its last words: " + last_words();
}

std::string RedisServer::last_words() const {
    std::ifstream output(directory_ + "/output");
    std::string last = "(it said nothing)";
    for (std::string line; std::getline(output, line);)
        if (!line.empty()) last = line;
    return last;
}

RedisServer::Memory RedisServer::memory() const {
    std::ifstream rollup("/proc/" + std::to_string(process_) + "/smaps_rollup");
    Memory memory;
    std::string line;
    std::getline(rollup, line);  // the address range
    std::string name, unit;
    for (std::uint64_t kibibytes = 0; rollup >> name >> kibibytes >> unit;) {
        if (name == "Rss:") memory.rss_bytes = kibibytes * 1024;
        if (name == "Anonymous:") memory.anonymous_bytes = kibibytes * 1024;
    }
    return memory;
}

// /proc/PID/stat, proc_pid_stat(5). The program's name may have anything in it: the fields are behind its
// last parenthesis, the third first.
RedisServer::Effort RedisServer::effort() const {
    constexpr int major_faults_field = 12, user_ticks_field = 14, system_ticks_field = 15;
    std::ifstream file("/proc/" + std::to_string(process_) + "/stat");
    std::string line, word;
    std::getline(file, line);
    std::istringstream fields(line.substr(line.rfind(')') + 1));
    Effort effort;
    std::uint64_t ticks = 0;
    for (int field = 3; field <= system_ticks_field && fields >> word; ++field) {
        if (field == major_faults_field) effort.major_faults = std::stoull(word);
        if (field == user_ticks_field || field == system_ticks_field) ticks += std::stoull(word);
    }
    effort.cpu_ns = ticks * (1'000'000'000u / static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK)));
    return effort;
}

}  // namespace pnode::bench
