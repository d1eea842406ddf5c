// Runs a command and keeps what it printed and how it ended.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace pnode::test {

struct Outcome {
    int exit_code = -1;  // -1: ended by `signal`
    int signal = 0;
    std::string output;
    std::string errors;
};

using Variables = std::vector<std::pair<std::string, std::string>>;

namespace detail {

// Reads both to their ends; each holds what the command and its children wrote.
inline void read_all(int output, int errors, Outcome* outcome) {
    pollfd ends[2] = {{output, POLLIN, 0}, {errors, POLLIN, 0}};
    std::string* const texts[2] = {&outcome->output, &outcome->errors};
    for (int open = 2; open > 0;) {
        ASSERT_GT(::poll(ends, 2, -1), 0);
        for (int index = 0; index < 2; ++index) {
            if (ends[index].fd < 0 || ends[index].revents == 0) continue;
            char part[4096];
            const ssize_t got = ::read(ends[index].fd, part, sizeof part);
            if (got > 0) {
                texts[index]->append(part, static_cast<std::size_t>(got));
            } else {
                ::close(ends[index].fd);
                ends[index].fd = -1;
                --open;
            }
        }
    }
}

[[noreturn]] inline void become(const std::vector<std::string>& command, const Variables& variables) {
    ::unsetenv("LD_PRELOAD");
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> arguments;
    for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    std::_Exit(120);
}

}  // namespace detail

// ctest's time limit ends a command that hangs.
inline Outcome run_command(const std::vector<std::string>& command, const Variables& variables = {}) {
    Outcome outcome;
    int output[2];
    int errors[2];
    if (::pipe(output) != 0 || ::pipe(errors) != 0) {
        ADD_FAILURE() << "no pipe";
        return outcome;
    }
    const pid_t child = ::fork();
    if (child == 0) {
        ::dup2(output[1], STDOUT_FILENO);
        ::dup2(errors[1], STDERR_FILENO);
        for (const int end : {output[0], output[1], errors[0], errors[1]}) ::close(end);
        detail::become(command, variables);
    }
    ::close(output[1]);
    ::close(errors[1]);
    detail::read_all(output[0], errors[0], &outcome);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
    return outcome;
}

inline bool is_one_line_of_pnode(const std::string& text) {
    return text.starts_with("pnode: ") && text.find('\n') == text.size() - 1;
}

}  // namespace pnode::test
