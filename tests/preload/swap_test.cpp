// Programs under the library while the kernel swaps their pages out and in again under everybody's feet: what
// is swapped is neither resident nor gone (runtime/os/userfaultfd.h), and records are counted all the same.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bench/common/zram_swap.h"
#include "tests/pressure/swap_out.h"

extern char** environ;

namespace {

struct Program {
    const char* name;
    const char* path;
    const char* filter;
    const char* near = "8M";
};

void PrintTo(const Program& program, std::ostream* out) {
    *out << program.name;
}

pid_t start(const Program& program, const std::string& engine) {
    std::vector<std::string> variables = {"LD_PRELOAD=" PRELOAD_LIBRARY, "PNODE_ACTIVATION=1M",
                                          std::string("PNODE_NEAR=") + program.near, "PNODE_ENGINE=" + engine,
                                          std::string("GTEST_FILTER=") + program.filter};
    std::vector<char*> environment, arguments = {const_cast<char*>(program.path), nullptr};
    for (std::string& variable : variables) environment.push_back(variable.data());
    for (char** variable = environ; *variable != nullptr; ++variable) environment.push_back(*variable);
    environment.push_back(nullptr);
    pid_t process = 0;
    const int error =
        posix_spawn(&process, program.path, nullptr, nullptr, arguments.data(), environment.data());
    return error == 0 ? process : -error;
}

class Swapped : public testing::TestWithParam<std::tuple<Program, std::string>> {
  protected:
    void TearDown() override {
        if (process_ <= 0) return;
        kill(process_, SIGKILL);
        waitpid(process_, nullptr, 0);
    }
    pid_t process_ = 0;
};

TEST_P(Swapped, AProgramKeepsItsBytes) {
    if (const std::string reason = pnode::bench::ZramSwap::why_unavailable(); !reason.empty())
        GTEST_SKIP() << reason;
    const pnode::bench::ZramSwap swap(std::uint64_t{2} << 30);
    std::mt19937 random(1);
    process_ = start(std::get<Program>(GetParam()), std::get<std::string>(GetParam()));
    ASSERT_GT(process_, 0);
    std::uint64_t swapped_max = 0;
    int status = 0;
    while (waitpid(process_, &status, WNOHANG) == 0) {
        pnode::test::swap_out(process_, random);
        swapped_max = std::max(swapped_max, pnode::test::swapped_kib(process_));
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    process_ = 0;
    EXPECT_EQ(status, 0);
    EXPECT_GT(swapped_max, 1000u) << "KiB: hardly anything was swapped out";
}

constexpr Program programs[] = {{"records", STORM_TEST, "Storm.RecordsAreCountedWhileChildrenReadThem"},
                                {"mappings", MAPPING_MODEL_TEST, "*"},
                                {"moving", MAPPING_TEST, "Remap.PagesThatAreLeftAloneMove", "32M"}};

INSTANTIATE_TEST_SUITE_P(Each, Swapped,
                         testing::Combine(testing::ValuesIn(programs),
                                          testing::Values(std::string("inline"), std::string("thread"))),
                         [](const auto& each) {
                             return std::string(std::get<Program>(each.param).name) + "_" +
                                    std::get<std::string>(each.param);
                         });

}  // namespace
