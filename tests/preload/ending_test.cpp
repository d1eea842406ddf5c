// How a process ends, under the preload library, when its last words are about memory that is far. The test
// starts itself anew for each ending.
#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "far_memory.h"

extern "C" char** environ;

namespace {

using preload_test::becomes_mostly_far;
using preload_test::FarBlock;
using preload_test::large_bytes;

constexpr int end_seconds_max = 60;
constexpr int last_words_right = 40;  // exit code of a process whose last look was right
constexpr int last_words_wrong = 41;

FarBlock* last_block = nullptr;

void say_last_words() {
    if (last_block != nullptr) _exit(last_block->is_intact() ? last_words_right : last_words_wrong);
}

// Destroyed after main(), and after whatever atexit() was told later.
struct LastLook {
    ~LastLook() { say_last_words(); }
};
const LastLook last_look;

void start_readers(const FarBlock& block) {
    for (std::size_t t = 0; t < 3; ++t) {
        std::thread([&block, t] {
            const std::size_t pages = block.bytes() / preload_test::page_bytes;
            for (std::size_t page = t;; page = (page + 7) % pages) {
                if (!block.page_is_intact(page)) _exit(last_words_wrong);
            }
        }).detach();
    }
}

void become_far(FarBlock& block) {
    if (!becomes_mostly_far(block)) _exit(50);
}

// Does not return but by the ending of that name.
int end_by(const std::string& ending) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    auto& block = *new FarBlock(large_bytes, 1);
    last_block = &block;
    become_far(block);
    if (ending == "return") return 3;
    if (ending == "exit") std::exit(3);
    if (ending == "exit-among-readers") {
        start_readers(block);
        usleep(20'000);
        std::exit(3);
    }
    if (ending == "_exit-among-readers") {
        start_readers(block);
        usleep(20'000);
        _exit(4);
    }
    if (ending == "quick_exit") {
        std::at_quick_exit(say_last_words);
        std::quick_exit(3);
    }
    if (ending == "pthread_exit") {
        // The last thread's end is the process's, with code 0; the destructors run.
        std::thread([&block] { become_far(block); }).detach();
        pthread_exit(nullptr);
    }
    if (ending == "abort") {
        start_readers(block);
        std::abort();
    }
    if (ending == "abort-with-a-handler") {
        // Looks, and returns: abort() ends the process all the same.
        signal(SIGABRT, [](int) {
            if (!last_block->is_intact()) _exit(last_words_wrong);
        });
        std::abort();
    }
    if (ending == "forked-exit") {
        if (fork() == 0) std::exit(3);
        int status = 0;
        wait(&status);
        _exit(WEXITSTATUS(status));
    }
    if (ending == "killed-among-readers") {
        start_readers(block);
        usleep(20'000);
        kill(getpid(), SIGTERM);
        pause();
    }
    if (ending == "exec-among-readers") {
        start_readers(block);
        usleep(20'000);
        execl("/bin/sh", "sh", "-c", "exit 5", static_cast<char*>(nullptr));
    }
    return 51;
}

// Until the child ends; one that does not is killed.
void wait_for_end(pid_t child) {
    const int fd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
    pollfd ended = {fd, POLLIN, 0};
    if (fd >= 0 && poll(&ended, 1, end_seconds_max * 1000) == 0) kill(child, SIGKILL);
    if (fd >= 0) close(fd);
}

// The status of this program ending so; -1 when it was not to be started.
int status_of(const std::string& ending) {
    char self[4096] = {};
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return -1;
    const std::string argument = "--end-by=" + ending;
    char* arguments[] = {self, const_cast<char*>(argument.c_str()), nullptr};
    pid_t child = 0;
    if (posix_spawn(&child, self, nullptr, nullptr, arguments, environ) != 0) return -1;
    wait_for_end(child);
    int status = -1;
    return waitpid(child, &status, 0) == child ? status : -1;
}

class Ending : public ::testing::TestWithParam<const char*> {};

TEST_P(Ending, LastWordsAreRight) {
    for (int round = 0; round < 3; ++round) {
        const int status = status_of(GetParam());
        ASSERT_TRUE(WIFEXITED(status)) << status;
        EXPECT_EQ(WEXITSTATUS(status), last_words_right);
    }
}

INSTANTIATE_TEST_SUITE_P(Process, Ending,
                         ::testing::Values("return", "exit", "exit-among-readers", "quick_exit",
                                           "pthread_exit", "forked-exit"),
                         [](const auto& ending) {
                             std::string name = ending.param;
                             std::replace(name.begin(), name.end(), '-', '_');
                             return name;
                         });

TEST(Endings, CodesAndSignalsAreTheProgramsOwn) {
    for (int round = 0; round < 3; ++round) {
        EXPECT_EQ(WEXITSTATUS(status_of("_exit-among-readers")), 4);
        EXPECT_EQ(WEXITSTATUS(status_of("exec-among-readers")), 5);
        for (const char* ending : {"abort", "abort-with-a-handler"}) {
            const int status = status_of(ending);
            EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) << ending << " " << status;
        }
        const int status = status_of("killed-among-readers");
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
    }
}

}  // namespace

int main(int count, char** arguments) {
    constexpr const char* end_by_option = "--end-by=";
    if (count == 2 && std::strncmp(arguments[1], end_by_option, std::strlen(end_by_option)) == 0)
        return end_by(arguments[1] + std::strlen(end_by_option));
    testing::InitGoogleTest(&count, arguments);
    return RUN_ALL_TESTS();
}
