#include "bench/fork/subject.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include "bench/common/samples.h"

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr int settle_seconds_max = 60;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

std::size_t anonymous_bytes_now() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("RssAnon:")) return std::strtoull(line.c_str() + 8, nullptr, 10) * 1024;
    }
    return 0;
}

// Numbers with their high bytes alike: they compress as records do, and no page is like another.
void fill(std::uint64_t* words, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes / sizeof(std::uint64_t); ++i) words[i] = (i | 3) * 0x101;
}

bool settle(std::size_t anonymous_bytes_max) {
    for (int i = 0; i < settle_seconds_max * 100; ++i) {
        if (anonymous_bytes_max == 0 || anonymous_bytes_now() <= anonymous_bytes_max) return true;
        usleep(10'000);
    }
    return false;
}

// The child's clock is read in the child's first instructions after fork(); the page is shared with it.
ForkTimes time_fork(volatile std::uint64_t* born_ns) {
    const std::uint64_t before = now_ns();
    const pid_t child = fork();
    if (child == 0) {
        *born_ns = now_ns();
        _exit(0);
    }
    const std::uint64_t after = now_ns();
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) fail("a forked child");
    const std::uint64_t reaped = now_ns();
    return {static_cast<double>(after - before), static_cast<double>(*born_ns - before),
            static_cast<double>(reaped - before)};
}

}  // namespace

int run_subject(std::size_t bytes, std::size_t anonymous_bytes_max) {
    void* shared = mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    // Large pages would make a fork of the plain process cheaper than that of one whose heap has none.
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    auto* words = static_cast<std::uint64_t*>(std::malloc(bytes));
    if (shared == MAP_FAILED || words == nullptr) fail("memory for the subject");
    fill(words, bytes);
    if (!settle(anonymous_bytes_max))
        throw std::runtime_error("the subject stays larger than its near limit");
    std::printf("%zu\n", anonymous_bytes_now());
    std::fflush(stdout);
    for (int c = std::getchar(); c != EOF; c = std::getchar()) {
        if (c != '\n') continue;
        const ForkTimes times = time_fork(static_cast<volatile std::uint64_t*>(shared));
        std::printf("%.0f %.0f %.0f\n", times.parent_ns, times.child_ns, times.reaped_ns);
        std::fflush(stdout);
    }
    return words[0] == 3 * 0x101 ? 0 : 1;
}

Subject::Subject(const std::vector<std::string>& wrapper, std::size_t bytes, std::size_t anonymous_bytes_max)
    : process_(wrapper,
               {"--subject", std::to_string(bytes), "--settle", std::to_string(anonymous_bytes_max)}),
      anonymous_bytes_(std::strtoull(process_.line().c_str(), nullptr, 10)) {}

ForkTimes Subject::fork_once() {
    process_.say("");
    ForkTimes times{};
    if (std::sscanf(process_.line().c_str(), "%lf %lf %lf", &times.parent_ns, &times.child_ns,
                    &times.reaped_ns) != 3)
        throw std::runtime_error("the process that was to fork said something else");
    return times;
}

}  // namespace pnode::bench
