// Bytes that went wrong in the node are never shown: the page is lost, and whoever asks is told.

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "runtime/os/injection.h"
#include "runtime/process.h"
#include "tests/runtime/heap_fixture.h"
#include "tests/sleeping_thread.h"

namespace pnode::test {
namespace {

// The region of an embedded node is a memfd of this process: written to here as a broken device would change
// it.
int open_region() {
    int found = -1;
    DIR* const folder = opendir("/proc/self/fd");
    while (const dirent* const entry = readdir(folder)) {
        char target[256] = {};
        const std::string path = std::string("/proc/self/fd/") + entry->d_name;
        if (readlink(path.c_str(), target, sizeof(target) - 1) > 0 && std::strncmp(target, "/memfd:", 7) == 0)
            found = open(path.c_str(), O_RDWR | O_CLOEXEC);
    }
    closedir(folder);
    return found;
}

// Flips one bit in every 64 bytes that the node holds, wherever its blobs lie.
void damage_node() {
    const int region = open_region();
    ASSERT_GE(region, 0);
    std::vector<unsigned char> piece(64 * kib);
    for (off_t at = lseek(region, 0, SEEK_DATA); at >= 0; at = lseek(region, at, SEEK_DATA)) {
        const ssize_t length = pread(region, piece.data(), piece.size(), at);
        ASSERT_GT(length, 0);
        for (ssize_t index = 0; index < length; index += 64) piece[static_cast<std::size_t>(index)] ^= 1;
        ASSERT_EQ(pwrite(region, piece.data(), static_cast<std::size_t>(length), at), length);
        at += length;
    }
    close(region);
}

// A sanitizer catches the signal, and ends the process with a code of its own.
bool ended_by_sigbus(int status) {
    if (sanitized && WIFEXITED(status)) return WEXITSTATUS(status) != 0;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

class Poison : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 32;

    void TearDown() override {  // its sums do not hold: pages were lost
        pn_heap_close(heap_);
        pn_node_close(options_.node);
    }

    // The heap has its node by a handle, as one that it may share: the evictor packs none of those, and no
    // blob is moved from what is not yet damaged to what is.
    void lose_pages() {
        ASSERT_EQ(pn_node_open(options_.node_spec, nullptr, &options_.node), 0) << pn_last_message();
        open_heap();
        buffer_ = alloc_filled(pages, Kind::text, 7);
        make_far(buffer_, pages);
        damage_node();
    }
    std::uint8_t* buffer_ = nullptr;
};

TEST_F(Poison, AccessRaisesSigbusAndTheReportNamesTheCause) {
    EXPECT_EXIT(
        {
            lose_pages();
            const volatile std::uint8_t* const byte = buffer_ + 3 * page_bytes + 100;
            std::printf("%d\n", *byte);
        },
        ended_by_sigbus, "page 0x[0-9a-f]+ is lost: its blob at 0x[0-9a-f]+ of the node");
}

// Rather than go on with a wrong byte.
TEST_F(Poison, WhereTheKernelCannotTellTheProgramItEnds) {
    EXPECT_EXIT(
        {
            lose_pages();
            os::injection = [](os::Call call, std::size_t*) noexcept {
                return call == os::Call::poison ? ENOSYS : 0;
            };
            const volatile std::uint8_t* const byte = buffer_ + 3 * page_bytes + 100;
            std::printf("%d\n", *byte);
        },
        ended_by_sigbus, "this kernel cannot deliver that as SIGBUS: the process ends");
}

TEST_F(Poison, PromoteAndPinSayEioAndNothingElseIsHarmed) {
    lose_pages();
    std::uint8_t* const other = alloc_filled(pages, Kind::text, 8);
    make_far(other, pages);
    EXPECT_EQ(pn_promote(heap_, buffer_, pages * page_bytes), EIO);
    EXPECT_EQ(pn_pin(heap_, buffer_, page_bytes), EIO);
    EXPECT_EQ(pages_in_state(buffer_, pages, PN_PAGE_POISONED), pages);
    EXPECT_EQ(stats().poisoned, pages);
    EXPECT_EQ(wrong_pages(other, pages, Kind::text, 8), 0u);
}

TEST_F(Poison, ReleasedPagesReadAsZerosAndCanBeUsedAgain) {
    lose_pages();
    EXPECT_EQ(pn_promote(heap_, buffer_, pages * page_bytes), EIO);
    EXPECT_EQ(pn_release(heap_, buffer_, pages * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::zeros, 0), 0u);
    fill_pages(buffer_, pages, Kind::text, 9);
    make_far(buffer_, pages);
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 9), 0u);
}

// One that is found as it changes, and one that was found before.
using InlinePoison = Poison;

TEST_F(InlinePoison, NoEngineChangesWhereAPageIsLost) {
    lose_pages();
    std::uint8_t* const other = alloc_filled(pages, Kind::text, 8);
    make_far(other, pages);
    for (int round = 0; round < 2; ++round) {
        EXPECT_FALSE(serve_by_handler_threads(nullptr));
        EXPECT_EQ(stats().poisoned, 1u);
        EXPECT_EQ(wrong_pages(other, pages, Kind::text, 8), 0u);
    }
}

// As before Linux 6.6: the process cannot be told in place, so that an access ends it; who asks is answered.
TEST_F(Poison, WithoutPoisonInTheKernelOnlyAnAccessEndsTheProcess) {
    lose_pages();
    os::injection.store(
        [](os::Call call, std::size_t*) noexcept { return call == os::Call::poison ? EINVAL : 0; });
    EXPECT_EQ(pn_promote(heap_, buffer_, pages / 2 * page_bytes), EIO);
    EXPECT_EQ(pn_promote(heap_, buffer_, pages / 2 * page_bytes), EIO);
    EXPECT_EQ(pn_pin(heap_, buffer_ + (pages - 1) * page_bytes, page_bytes), EIO);
    EXPECT_EQ(stats().poisoned, pages / 2 + 1);
    os::injection.store(nullptr);
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "ThreadSanitizer cannot follow threads that are started after a fork";
#endif
    EXPECT_EXIT(
        {
            lose_pages();
            os::injection.store(
                [](os::Call call, std::size_t*) noexcept { return call == os::Call::poison ? EINVAL : 0; });
            const volatile std::uint8_t* const byte = buffer_ + page_bytes;
            std::printf("%d\n", *byte);
        },
        ended_by_sigbus, "cannot deliver that as SIGBUS: the process ends");
}

class StatsFile : public HeapTest {
  protected:
    std::string path_ = ::testing::TempDir() + "pnode-stats-" + std::to_string(getpid());
    void TearDown() override {
        HeapTest::TearDown();
        unlink(path_.c_str());
    }
    nlohmann::json read() const {
        std::ifstream file(path_);
        return nlohmann::json::parse(file, nullptr, false);
    }
};

TEST_F(StatsFile, IsWrittenAtOnceAndWhole) {
    open_heap();
    make_far(alloc_filled(16, Kind::text, 1), 16);
    ASSERT_EQ(pn_stats_file(heap_, path_.c_str(), 0), 0);
    EXPECT_TRUE(read().is_object());
    EXPECT_GE(read().value("demotions", 0u), 16u);
}

TEST_F(StatsFile, IsRewrittenWhileTheHeapIsActive) {
    open_heap();
    ASSERT_EQ(pn_stats_file(heap_, path_.c_str(), 10), 0);
    make_far(alloc_filled(16, Kind::text, 1), 16);
    EXPECT_TRUE(eventually([&] {
        const nlohmann::json found = read();
        return found.is_object() && found.value("demotions", 0u) >= 16u;
    }));
}

// A program's end writes the file while the evictor may be writing it.
TEST_F(StatsFile, IsWrittenByTwoAndTheEvictorAtATime) {
    open_heap();
    make_far(alloc_filled(16, Kind::text, 1), 16);
    ASSERT_EQ(pn_stats_file(heap_, path_.c_str(), 1), 0);
    std::atomic<int> failed{0};
    std::atomic<int> torn{0};
    const auto write_often = [&] {
        for (int i = 0; i < 300; ++i) {
            failed += pn_stats_file(heap_, path_.c_str(), 0) != 0 ? 1 : 0;
            torn += read().is_object() ? 0 : 1;
        }
    };
    std::thread other(write_often);
    write_often();
    other.join();
    EXPECT_EQ(failed, 0);
    EXPECT_EQ(torn, 0);
}

TEST_F(StatsFile, BadPathsAreRefused) {
    open_heap();
    EXPECT_EQ(pn_stats_file(heap_, "/nowhere/at/all", 0), ENOENT);
    EXPECT_EQ(pn_stats_file(heap_, std::string(2000, 'x').c_str(), 0), EINVAL);
    EXPECT_EQ(pn_stats_file(heap_, nullptr, 0), EINVAL);
    EXPECT_EQ(pn_stats_file(nullptr, path_.c_str(), 0), EINVAL);
}

using InlinePoisonDeathTest = Poison;

// What the program ignores interrupts none of its system calls, though we handle it.
TEST_F(InlinePoisonDeathTest, AnIgnoredSignalInterruptsNoCall) {
    EXPECT_EXIT(
        {
            signal(SIGBUS, SIG_IGN);
            open_heap();
            int ends[2];
            ASSERT_EQ(pipe(ends), 0);
            std::atomic<pid_t> reader{0};
            std::thread thread([&] {
                char byte = 0;
                reader = gettid();
                _exit(read(ends[0], &byte, 1) == 1 ? 0 : 1);
            });
            while (reader == 0 || !sleeps(reader)) std::this_thread::yield();
            syscall(SYS_tgkill, getpid(), reader.load(), SIGBUS);
            // The signal is delivered before the thread can sleep again.
            while (!sleeps(reader)) std::this_thread::yield();
            EXPECT_EQ(write(ends[1], "x", 1), 1);
            thread.join();
        },
        ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace pnode::test
