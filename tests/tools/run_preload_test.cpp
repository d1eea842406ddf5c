// `pnode run` with the library it is for, found where the build puts it.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "nlohmann/json.hpp"
#include "tests/tools/process.h"

namespace pnode::test {
namespace {

Outcome pnode_run(std::vector<std::string> options, const std::vector<std::string>& command,
                  const Variables& variables = {}) {
    options.insert(options.begin(), {PNODE_COMMAND, "run"});
    options.emplace_back("--");
    options.insert(options.end(), command.begin(), command.end());
    return run_command(options, variables);
}

// A heap that passes every activation size used here, and is read back.
const std::vector<std::string> growing = {"python3", "-c",
                                          "data = [bytes([i % 251]) * 9000 for i in range(5000)]\n"
                                          "print(sum(part[-1] for part in data))"};

std::string expected_sum() {
    int sum = 0;
    for (int i = 0; i < 5000; ++i) sum += i % 251;
    return std::to_string(sum) + "\n";
}

int lines_with(const std::string& text, const std::string& part) {
    std::istringstream lines(text);
    int count = 0;
    for (std::string line; std::getline(lines, line);) count += line.find(part) != std::string::npos ? 1 : 0;
    return count;
}

TEST(RunPreload, LibraryIsFoundBesideTheCommand) {
    const Outcome outcome = pnode_run({}, {"cat", "/proc/self/maps"});
    EXPECT_NE(outcome.output.find(std::filesystem::canonical(PRELOAD_LIBRARY)), std::string::npos)
        << outcome.errors;
}

TEST(RunPreload, ExitCodesAndSignalsAreTheProgramsOwn) {
    EXPECT_EQ(pnode_run({}, {"sh", "-c", "exit 42"}).exit_code, 42);
    EXPECT_EQ(pnode_run({}, {"sh", "-c", "kill -TERM $$"}).signal, SIGTERM);
    EXPECT_EQ(pnode_run({}, {"sh", "-c", "kill -SEGV $$"}).signal, SIGSEGV);
}

TEST(RunPreload, BadVariablesAreToldOnceEachAndTheProgramRuns) {
    const Outcome outcome =
        pnode_run({}, growing, {{"PNODE_NEAR", "rubbish"}, {"PNODE_NAER", "1M"}, {"PNODE_ENGINE", ""}});
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.output, expected_sum());
    EXPECT_EQ(lines_with(outcome.errors, "pnode: PNODE_NEAR=rubbish"), 1) << outcome.errors;
    EXPECT_EQ(lines_with(outcome.errors, "pnode: PNODE_NAER"), 1) << outcome.errors;
    EXPECT_EQ(lines_with(outcome.errors, "pnode: PNODE_ENGINE="), 1) << outcome.errors;
}

TEST(RunPreload, ANearLimitTooSmallForTheProgramStillLetsItFinish) {
    const Outcome outcome = pnode_run({"--near", "1M", "--activation", "1M"}, growing);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    EXPECT_EQ(outcome.output, expected_sum());
}

TEST(RunPreload, StatisticsAreWrittenAsJson) {
    const std::filesystem::path file =
        std::filesystem::path(testing::TempDir()) / ("pnode-stats-" + std::to_string(::getpid()));
    const Outcome outcome = pnode_run({"--near", "8M", "--stats", file.string()}, growing);
    EXPECT_EQ(outcome.output, expected_sum()) << outcome.errors;
    std::ifstream stream(file);
    const auto statistics = nlohmann::json::parse(stream, nullptr, false);
    ASSERT_TRUE(statistics.is_object());
    EXPECT_EQ(statistics.value("near_bytes_max", 0u), 8u << 20);
    std::filesystem::remove(file);
}

TEST(RunPreload, VerboseSaysWhatWasSetUp) {
    const Outcome outcome = pnode_run({"--near", "8M", "--codec", "zstd:1", "--verbose"}, growing);
    EXPECT_EQ(outcome.output, expected_sum()) << outcome.errors;
    EXPECT_EQ(lines_with(outcome.errors, " engine, "), 1) << outcome.errors;
    EXPECT_EQ(lines_with(outcome.errors, "codec zstd, near limit 8.0 MiB"), 1) << outcome.errors;
}

TEST(RunPreload, WithoutAnyUserfaultfdTheProgramRunsAndOneLineSaysSo) {
    const Outcome outcome = pnode_run({"--near", "8M", "--hide", "userfaultfd"}, growing);
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.output, expected_sum());
    EXPECT_TRUE(is_one_line_of_pnode(outcome.errors)) << outcome.errors;
}

}  // namespace
}  // namespace pnode::test
