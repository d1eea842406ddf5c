#include "bench/report/suites.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

#include "bench/common/interrupt.h"

namespace pnode::bench {
namespace {

[[noreturn]] void become(std::vector<std::string> command, int output) {
    dup2(output, STDOUT_FILENO);
    std::vector<char*> arguments;
    for (std::string& argument : command) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    execv(arguments[0], arguments.data());
    fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
    _exit(127);
}

// A signal from the terminal reaches the child too, which puts the machine back; so it is always waited for.
std::string output_of(const std::vector<std::string>& command) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error(std::string("pipe2: ") + strerror(errno));
    const pid_t child = fork();
    if (child == 0) become(command, ends[1]);
    close(ends[1]);
    std::string output;
    char part[65536];
    for (ssize_t got; child > 0 && (got = read(ends[0], part, sizeof part)) != 0;) {
        if (got > 0)
            output.append(part, static_cast<std::size_t>(got));
        else if (errno != EINTR)
            break;
    }
    close(ends[0]);
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    throw_if_interrupted();
    if (child < 0 || status != 0) throw std::runtime_error(command[0] + " failed");
    return output;
}

}  // namespace

const std::vector<Suite>& suites() {
    static const std::vector<Suite> all = {
        {"fault", "pnode-bench-fault", {}, {"--quick"}},
        {"churn", "pnode-bench-churn", {}, {"--quick"}},
        {"limits",
         "pnode-bench-churn",
         {"--near-percent", "20,40,60,80,100", "--cases", "read-uniform", "--threads", "1"},
         {"--near-percent", "20,40,60,80,100", "--cases", "read-uniform", "--threads", "1", "--quick"}},
        {"redis", "pnode-bench-redis", {}, {"--quick"}},
        {"codec", "pnode-bench-codec", {}, {"--benchmark_min_time=0.02"}},
        {"packing", "pnode-bench-packing", {}, {}},
    };
    return all;
}

std::vector<Run> run_suite(const Suite& suite, const std::string& folder, bool quick) {
    const std::string path = folder + "/" + suite.program;
    if (access(path.c_str(), X_OK) != 0)
        throw std::runtime_error("there is no " + path + " (it may have been left out of the build)");
    std::vector<std::string> command = {path, "--json"};
    const std::vector<std::string>& more = quick ? suite.quick_arguments : suite.arguments;
    command.insert(command.end(), more.begin(), more.end());
    std::vector<Run> runs = parse_runs(output_of(command));
    for (Run& run : runs) run.header["suite"] = suite.name;
    return runs;
}

}  // namespace pnode::bench
