#include "bench/report/suites.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

#include "bench/common/interrupt.h"
#include "bench/common/samples.h"

namespace pnode::bench {
namespace {

// A suite takes minutes, a quick one a minute; whatever takes much longer than that never ends.
constexpr std::uint64_t suite_seconds_max = 1800, quick_suite_seconds_max = 600;
constexpr int ending_attempts = 600;
constexpr useconds_t attempt_us = 100'000;

[[noreturn]] void become(std::vector<std::string> command, int output) {
    dup2(output, STDOUT_FILENO);
    std::vector<char*> arguments;
    for (std::string& argument : command) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    execv(arguments[0], arguments.data());
    fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
    _exit(127);
}

// Reads until the end or `deadline_ns`; false: the end did not come in time.
bool read_all(int pipe, std::uint64_t deadline_ns, std::string* output) {
    char part[65536];
    for (std::uint64_t now = now_ns(); now < deadline_ns && interrupted() == 0; now = now_ns()) {
        pollfd watched = {pipe, POLLIN, 0};
        const int left_ms = static_cast<int>((deadline_ns - now) / 1'000'000) + 1;
        if (poll(&watched, 1, left_ms) <= 0) continue;
        const ssize_t got = read(pipe, part, sizeof part);
        if (got == 0) return true;
        if (got > 0) output->append(part, static_cast<std::size_t>(got));
    }
    return false;
}

// The child's status. It is told to end when it is late, so that it puts the machine back, and ended when it
// does not (what must be undone is a guardian's then).
int end_of(pid_t child, bool is_late) {
    int status = 0;
    if (is_late) kill(child, SIGTERM);
    for (int attempt = 0; is_late && attempt < ending_attempts; ++attempt) {
        if (waitpid(child, &status, WNOHANG) == child) return status;
        usleep(attempt_us);
    }
    if (is_late) kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

// A signal from the terminal reaches the child too, which puts the machine back; so it is always waited for.
std::string output_of(const std::vector<std::string>& command, std::uint64_t seconds_max) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error(std::string("pipe2: ") + strerror(errno));
    const pid_t child = fork();
    if (child == 0) become(command, ends[1]);
    close(ends[1]);
    std::string output;
    const bool is_whole = child > 0 && read_all(ends[0], now_ns() + seconds_max * 1'000'000'000, &output);
    const int status = child > 0 ? end_of(child, !is_whole) : -1;
    close(ends[0]);
    throw_if_interrupted();
    if (child > 0 && !is_whole)
        throw std::runtime_error(command[0] + " was not done in " + std::to_string(seconds_max) + " s");
    if (status != 0) throw std::runtime_error(command[0] + " failed");
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
        // Every way to store one corpus, then every corpus stored the two ways that are fast.
        {"codec", "pnode-bench-codec", {"--corpora", "catalogue"}, {"--corpora", "catalogue", "--quick"}},
        {"density",
         "pnode-bench-codec",
         {"--codecs", "lz4", "--block-kib", "4,16", "--no-dictionaries", "--pages", "16384"},
         {"--codecs", "lz4", "--block-kib", "4,16", "--no-dictionaries", "--quick"}},
        {"packing", "pnode-bench-packing", {}, {}},
        {"malloc",
         "pnode-bench-malloc",
         {},
         {"--live", "16M", "--allocations", "100000", "--processes", "2", "--rounds", "2"}},
        {"fork", "pnode-bench-fork", {}, {"--near", "16M", "--rounds", "20"}},
        {"scale",
         "pnode-bench-scale",
         {},
         {"--dense", "64M", "--sparse-pages", "4096", "--near", "4M", "--touches", "2000", "--rounds", "2"}},
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
    std::vector<Run> runs =
        parse_runs(output_of(command, quick ? quick_suite_seconds_max : suite_seconds_max));
    for (Run& run : runs) run.header["suite"] = suite.name;
    return runs;
}

}  // namespace pnode::bench
