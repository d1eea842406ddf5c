#include "bench/common/own_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "bench/common/interrupt.h"

namespace pnode::bench {
namespace {

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// A wrapper's own /proc/self/exe would be the wrapper. Nothing where there is no /proc.
std::filesystem::path this_program() {
    std::error_code ignored;
    return std::filesystem::read_symlink("/proc/self/exe", ignored);
}

}  // namespace

std::string pnode_beside_this_program() noexcept {
    return this_program().parent_path() / "pnode";
}

OwnProcess::OwnProcess(const std::vector<std::string>& wrapper, const std::vector<std::string>& arguments) {
    std::vector<std::string> command = wrapper;
    command.push_back(this_program());
    command.insert(command.end(), arguments.begin(), arguments.end());
    std::vector<char*> words;
    words.reserve(command.size() + 1);
    for (std::string& word : command) words.push_back(word.data());
    words.push_back(nullptr);
    int to[2];
    int from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) fail("pipe");
    pid_ = fork();
    if (pid_ < 0) fail("fork");
    if (pid_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (dup2(to[0], STDIN_FILENO) < 0 || dup2(from[1], STDOUT_FILENO) < 0) _exit(127);
        execv(words[0], words.data());
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    to_ = to[1];
    from_ = from[0];
}

OwnProcess::~OwnProcess() {
    close(to_);
    close(from_);
    waitpid(pid_, nullptr, 0);
}

void OwnProcess::say(const std::string& line) {
    const std::string text = line + "\n";
    if (write(to_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        fail("write to a process of the benchmark's");
}

std::string OwnProcess::line() {
    std::string text;
    char c = 0;
    while (read(from_, &c, 1) == 1) {
        if (c == '\n') return text;
        text += c;
    }
    throw_if_interrupted();
    throw std::runtime_error("a process of the benchmark's ended before it answered");
}

}  // namespace pnode::bench
