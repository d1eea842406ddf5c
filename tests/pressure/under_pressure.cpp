// under-pressure [--swap BYTES] COMMAND...: runs a command while the kernel swaps out the pages of its
// processes, again and again, and compacts memory: what write protection, moved pages and what mincore(2)
// says go through on a machine that is short of memory. Exits as the command does, with 1 where it hardly
// swapped, with 77 where this machine cannot swap; that is said in one line.
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "bench/common/interrupt.h"
#include "bench/common/zram_swap.h"
#include "tests/pressure/swap_out.h"

extern char** environ;

namespace pnode::test {
namespace {

constexpr int cannot = 77;
constexpr std::uint64_t swapped_bytes_least = 10'000 * 1024;
constexpr auto pause = std::chrono::milliseconds(10);
constexpr auto compact_every = std::chrono::milliseconds(200);

// Its children, theirs, and so on; a process that ends meanwhile has none.
void add_descendants(pid_t process, std::vector<pid_t>& found) {
    std::error_code gone;
    const std::string tasks = "/proc/" + std::to_string(process) + "/task";
    for (std::filesystem::directory_iterator task(tasks, gone), end; !gone && task != end;
         task.increment(gone)) {
        std::ifstream children(task->path() / "children");
        for (pid_t child = 0; children >> child;) {
            found.push_back(child);
            add_descendants(child, found);
        }
    }
}

pid_t start(const std::vector<std::string>& command) {
    std::vector<char*> arguments;
    for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    pid_t process = 0;
    const int error = posix_spawnp(&process, arguments[0], nullptr, nullptr, arguments.data(), environ);
    if (error != 0) throw std::system_error(error, std::generic_category(), command[0]);
    return process;
}

// A command and all that it started, of which whoever lost its parent is this process's child; they are ended
// when this is interrupted. What was this process's child before, the swap's guardian, is not of them.
class Command {
  public:
    explicit Command(const std::vector<std::string>& command) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        add_descendants(getpid(), others_);
        process_ = start(command);
    }
    ~Command() {
        if (has_ended_) return;
        constexpr int looks_max = 500;
        for (int look = 0; look < looks_max; ++look) {
            const std::vector<pid_t> left = processes();
            if (left.empty()) return;
            for (const pid_t process : left) kill(process, SIGKILL);
            std::this_thread::sleep_for(pause);
            while (waitpid(-1, nullptr, WNOHANG) > 0) {
            }
        }
        std::fputs("under-pressure: some of what was started is still there\n", stderr);
    }
    Command(const Command&) = delete;
    Command& operator=(const Command&) = delete;

    std::vector<pid_t> processes() const {
        std::vector<pid_t> found;
        add_descendants(getpid(), found);
        std::erase_if(found, [&](pid_t process) {
            return std::find(others_.begin(), others_.end(), process) != others_.end();
        });
        return found;
    }

    bool has_ended(int* status) {
        int one = 0;
        for (pid_t process = 0; (process = waitpid(-1, &one, WNOHANG)) > 0;) {
            if (process != process_) continue;
            *status = one;
            has_ended_ = true;
        }
        return has_ended_;
    }

  private:
    std::vector<pid_t> others_;
    pid_t process_ = 0;
    bool has_ended_ = false;
};

int run(const std::vector<std::string>& words, std::uint64_t swap_bytes) {
    const bench::ZramSwap swap(swap_bytes);
    std::mt19937 random(1);
    Command command(words);
    std::uint64_t swapped_bytes_max = 0;
    auto compacted = std::chrono::steady_clock::now();
    int status = 0;
    while (!command.has_ended(&status)) {
        for (const pid_t process : command.processes()) swap_out(process, random);
        swapped_bytes_max = std::max(swapped_bytes_max, swap.usage().original_bytes);
        if (const auto now = std::chrono::steady_clock::now(); now - compacted > compact_every) {
            std::ofstream("/proc/sys/vm/compact_memory") << 1;
            compacted = now;
        }
        std::this_thread::sleep_for(pause);
        bench::throw_if_interrupted();
    }
    if (swapped_bytes_max < swapped_bytes_least)
        throw std::runtime_error("hardly anything was swapped out: at most " +
                                 std::to_string(swapped_bytes_max / 1024) + " KiB at once");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace
}  // namespace pnode::test

int main(int count, char** arguments) {
    using namespace pnode;
    CLI::App app("Runs a command while its pages are swapped out all the time and memory is compacted.");
    app.prefix_command();
    std::uint64_t swap_bytes = std::uint64_t{8} << 30;
    app.add_option("--swap", swap_bytes, "how large the swap is (8G)")->transform(CLI::AsSizeValue(false));
    CLI11_PARSE(app, count, arguments);
    if (app.remaining().empty()) {
        std::fputs("under-pressure: a command is missing\n", stderr);
        return 2;
    }
    if (const std::string reason = bench::ZramSwap::why_unavailable(); !reason.empty()) {
        std::printf("SKIPPED: %s\n", reason.c_str());
        return test::cannot;
    }
    int exit_code = 1;
    const int failed =
        bench::run_driver("under-pressure", [&] { exit_code = test::run(app.remaining(), swap_bytes); });
    return failed != 0 ? failed : exit_code;
}
