// `pnode run` becomes the program: its arguments, its exit code, its signals, its process.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/tools/command.h"

namespace pnode::test {
namespace {

Outcome run_shell(const std::string& script, Variables variables = {}) {
    return pnode_command({"run", "--", "sh", "-c", script}, std::move(variables));
}

TEST(RunProgram, ExitCodesAreTheProgramsOwn) {
    for (const int code : {0, 1, 2, 42, 126, 127, 255}) {
        const Outcome outcome = run_shell("exit " + std::to_string(code));
        EXPECT_EQ(outcome.exit_code, code);
        EXPECT_EQ(outcome.errors, "");
    }
}

TEST(RunProgram, SignalsAreTheProgramsOwn) {
    for (const int signal : {SIGTERM, SIGKILL, SIGINT, SIGUSR1}) {
        EXPECT_EQ(run_shell("kill -" + std::to_string(signal) + " $$").signal, signal);
    }
}

TEST(RunProgram, ArgumentsArriveAsTheyAre) {
    const Outcome outcome =
        pnode_command({"run", "--", "printf", "<%s>", "", "a b", "--", "--near", "-x", "$HOME", "\"'"});
    EXPECT_EQ(outcome.output, "<><a b><--><--near><-x><$HOME><\"'>");
}

TEST(RunProgram, IsTheSameProcess) {
    // The shell that becomes pnode tells its process id, and the program then has it.
    const Outcome outcome =
        run_command({"sh", "-c", "echo $$; exec \"$0\" run -- sh -c 'echo $$'", PNODE_COMMAND},
                    {{"PNODE_LIBRARY", EMPTY_PRELOAD}});
    const std::size_t half = outcome.output.size() / 2;
    EXPECT_EQ(outcome.output.substr(0, half), outcome.output.substr(half)) << outcome.output;
    EXPECT_GT(half, 1u);
}

TEST(RunProgram, LibraryComesFirstAndWhatWasPreloadedStays) {
    const std::string library = std::filesystem::canonical(EMPTY_PRELOAD);
    const std::string print = "echo \"$LD_PRELOAD\"";
    EXPECT_EQ(run_shell(print).output, library + "\n");
    EXPECT_EQ(run_shell(print, {{"LD_PRELOAD", "libm.so.6 libdl.so.2"}}).output,
              library + ":libm.so.6:libdl.so.2\n");
}

TEST(RunProgram, NestedRunsPreloadTheLibraryOnce) {
    const Outcome outcome =
        pnode_command({"run", "--", PNODE_COMMAND, "run", "--", "printenv", "LD_PRELOAD"});
    EXPECT_EQ(outcome.output, std::filesystem::canonical(EMPTY_PRELOAD).string() + "\n") << outcome.errors;
}

TEST(RunProgram, LibraryIsReallyLoaded) {
    const Outcome outcome = pnode_command({"run", "--", "cat", "/proc/self/maps"});
    EXPECT_NE(outcome.output.find(std::filesystem::canonical(EMPTY_PRELOAD)), std::string::npos);
}

TEST(RunProgram, AMissingLibraryIsNamedWithItsCure) {
    expect_refusal(
        pnode_command({"run", "--", "true"}, {{"PNODE_LIBRARY", "/nonexistent/libpnode-preload.so"}}), 1,
        "PNODE_LIBRARY");
}

TEST(RunProgram, ALibraryThatTheLoaderWouldSplitIsRefused) {
    const std::filesystem::path folder =
        std::filesystem::path(testing::TempDir()) / ("pnode a b " + std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "lib.so") << "x";
    expect_refusal(pnode_command({"run", "--", "true"}, {{"PNODE_LIBRARY", (folder / "lib.so").string()}}), 1,
                   "blanks");
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace pnode::test
