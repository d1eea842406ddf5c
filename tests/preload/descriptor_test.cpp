// A program that closes descriptors it does not know, under the preload library.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <vector>

#include "far_memory.h"

namespace {

using preload_test::becomes_mostly_far;
using preload_test::FarBlock;

constexpr std::size_t large_bytes = std::size_t{32} << 20;

// Numbers of the open descriptors from 100 on.
std::vector<int> high_descriptors() {
    std::vector<int> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        const int fd = std::stoi(entry.path().filename());
        if (fd >= 100) found.push_back(fd);
    }
    return found;
}

class Descriptors : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_TRUE(becomes_mostly_far(block_));
        for (const int fd : high_descriptors()) close(fd);  // what the test runner let us inherit
        owned_ = high_descriptors();
        ASSERT_FALSE(owned_.empty());
    }
    // In a child, so that the test's own output stays.
    template <typename Body>
    void child_survives(Body&& close_everything) {
        const pid_t child = fork();
        if (child == 0) {
            const int before = static_cast<int>(high_descriptors().size());
            close_everything();
            if (fcntl(STDERR_FILENO, F_GETFD) != -1) _exit(1);  // it did close
            const bool intact = block_.is_intact();
            // The directory needs a descriptor of its own, and finds 0 free.
            _exit(!intact ? 2 : static_cast<int>(high_descriptors().size()) != before ? 3 : 0);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status)) << status;
        EXPECT_EQ(WEXITSTATUS(status), 0);
        EXPECT_TRUE(block_.is_intact());
    }

    FarBlock block_{large_bytes, 1};
    std::vector<int> owned_;
};

TEST_F(Descriptors, OfTheRuntimeAreCloseOnExec) {
    for (const int fd : owned_) EXPECT_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC) << fd;
}

TEST_F(Descriptors, OfTheRuntimeSurviveClose) {
    child_survives([] {
        for (int fd = 0; fd < 2000; ++fd) close(fd);
    });
}

TEST_F(Descriptors, OfTheRuntimeSurviveClosefrom) {
    child_survives([] { closefrom(0); });
}

TEST_F(Descriptors, OfTheRuntimeSurviveCloseRange) {
    child_survives([] { EXPECT_EQ(close_range(0, ~0U, 0), 0); });
}

TEST_F(Descriptors, ACloseOfTheRuntimesSucceeds) {
    for (const int fd : owned_) EXPECT_EQ(close(fd), 0);
    EXPECT_EQ(high_descriptors(), owned_);
}

TEST_F(Descriptors, ADupOntoTheRuntimesIsRefused) {
    errno = 0;
    EXPECT_EQ(dup2(0, owned_.front()), -1);
    EXPECT_EQ(errno, EBUSY);
    errno = 0;
    EXPECT_EQ(dup3(0, owned_.front(), O_CLOEXEC), -1);
    EXPECT_EQ(errno, EBUSY);
}

// The program has one thread: what it closed is the lowest free number, and nobody takes it meanwhile. The
// variant with statistics has the evictor write a file all the time.
TEST_F(Descriptors, OfTheRuntimeTakeNoNumberOfThePrograms) {
    const int fd = open("/dev/null", O_RDONLY);
    ASSERT_GE(fd, 0);
    for (int round = 0; round < 50'000; ++round) {
        ASSERT_EQ(close(fd), 0) << "round " << round;
        ASSERT_EQ(open("/dev/null", O_RDONLY), fd) << "round " << round;
        ASSERT_EQ(close(fd), 0) << "round " << round;
        ASSERT_EQ(dup2(0, fd), fd) << "round " << round << ": errno " << errno;
    }
    EXPECT_EQ(close(fd), 0);
}

TEST_F(Descriptors, OfTheProgramCloseAsEver) {
    const int fd = open("/dev/null", O_RDONLY);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(dup2(fd, 90), 90);
    EXPECT_EQ(dup3(fd, 91, O_CLOEXEC), 91);
    EXPECT_EQ(close_range(90, 91, 0), 0);
    EXPECT_EQ(fcntl(90, F_GETFD), -1);
    EXPECT_EQ(fcntl(91, F_GETFD), -1);
    EXPECT_EQ(close(fd), 0);
    errno = 0;
    EXPECT_EQ(close(fd), -1);
    EXPECT_EQ(errno, EBADF);
    errno = 0;
    EXPECT_EQ(close_range(10, 5, 0), -1);
    EXPECT_EQ(errno, EINVAL);
}

}  // namespace
