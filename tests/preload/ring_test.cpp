// io_uring under the shield: the kernel's accesses come later, from nowhere that can be held. A program that
// sets a ring up before anything is far gets handler threads, which serve them; with one that comes later the
// heap changes over from the inline engine, while everybody goes on.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "far_memory.h"
#include "forked.h"

namespace {

using preload_test::becomes_far;
using preload_test::becomes_mostly_far;
using preload_test::exit_code_of_child;
using preload_test::FarBlock;
using preload_test::large_bytes;
using preload_test::page_bytes;

// A ring, and a file of one page of a letter; what goes wrong is told by where. A forked child uses it too.
class Transfers {
  public:
    // Where others have the machine, two seconds may pass before the change begins: then the ring is refused.
    explicit Transfers(int tries = 30) : file_(memfd_create("ring", MFD_CLOEXEC)) {
        do error_ = io_uring_queue_init(4, &ring_, 0);
        while (error_ == -EPERM && --tries > 0);
    }
    ~Transfers() {
        if (error_ == 0) io_uring_queue_exit(&ring_);
        close(file_);
    }
    Transfers(const Transfers&) = delete;
    Transfers& operator=(const Transfers&) = delete;

    int error() const { return error_; }

    // In and out of far pages, by a thread of the kernel's. Null, or what is wrong.
    const char* go_both_ways(char letter, const FarBlock& pressure) {
        const std::unique_ptr<char, void (*)(void*)> memory(
            static_cast<char*>(std::aligned_alloc(page_bytes, 3 * page_bytes)), std::free);
        char* const pages = memory.get();
        std::memset(pages, letter, page_bytes);
        std::memset(pages + page_bytes, 'x', 2 * page_bytes);
        if (!becomes_far(pages, 3 * page_bytes, 0, pressure)) return "nothing goes far";
        io_uring_prep_write(io_uring_get_sqe(&ring_), file_, pages, page_bytes, 0);
        if (result() != static_cast<int>(page_bytes)) return "it cannot be written from";
        if (!becomes_far(pages, 3 * page_bytes, 0, pressure)) return "nothing goes far again";
        io_uring_sqe* const read = io_uring_get_sqe(&ring_);
        io_uring_prep_read(read, file_, pages + page_bytes, page_bytes, 0);
        io_uring_sqe_set_flags(read, IOSQE_ASYNC);
        if (result() != static_cast<int>(page_bytes)) return "it cannot be read into";
        for (std::size_t at = 0; at < 3 * page_bytes; ++at)
            if (pages[at] != (at < 2 * page_bytes ? letter : 'x')) return "a byte is wrong";
        return nullptr;
    }

  private:
    int result() {
        if (io_uring_submit(&ring_) != 1) return -EIO;
        io_uring_cqe* done = nullptr;
        if (const int error = io_uring_wait_cqe(&ring_, &done)) return error;
        const int result = done->res;
        io_uring_cqe_seen(&ring_, done);
        return result;
    }

    io_uring ring_;
    int error_ = 0;
    int file_;
};

int transfers_in_child(const FarBlock& block) {
    Transfers transfers;
    if (transfers.error() != 0) return 1;
    if (!block.is_intact()) return 2;
    const FarBlock mine(large_bytes, 9);
    if (transfers.go_both_ways('c', mine) != nullptr) return 3;
    return block.is_intact() && mine.is_intact() ? 0 : 4;
}

TEST(EarlyRing, ReadsIntoFarMemory) {
    Transfers transfers;
    ASSERT_EQ(transfers.error(), 0);
    FarBlock block(large_bytes, 1);
    for (char letter = 'a'; letter != 'e'; ++letter)
        EXPECT_STREQ(transfers.go_both_ways(letter, block), nullptr);
    EXPECT_TRUE(block.is_intact());
}

TEST(LateRing, ReadsIntoFarMemory) {
    FarBlock block(large_bytes, 2);
    ASSERT_TRUE(becomes_mostly_far(block));
    Transfers transfers;
    ASSERT_EQ(transfers.error(), 0);
    for (char letter = 'a'; letter != 'e'; ++letter)
        EXPECT_STREQ(transfers.go_both_ways(letter, block), nullptr);
    EXPECT_TRUE(block.is_intact());
    // The second one finds it done.
    Transfers others;
    EXPECT_EQ(others.error(), 0);
}

// Each thread reads its own block, writes it anew, has system calls read and write it, allocates and frees;
// nothing may go wrong in any, whatever it was doing when the engine changed. Several ask for it at once.
TEST(LateRing, NobodyIsDisturbed) {
    constexpr unsigned threads_count = 6;
    constexpr std::size_t bytes = std::size_t{4} << 20;
    std::atomic<bool> done{false};
    std::atomic<unsigned> wrong{0};
    std::vector<std::atomic<unsigned>> rounds(threads_count);
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < threads_count; ++thread) {
        threads.emplace_back([&, thread] {
            FarBlock block(bytes, 10 + thread);
            const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
            const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
            for (unsigned round = 0; !done; ++round) {
                if (!block.is_intact()) ++wrong;
                if (write(null, block.data(), bytes) != static_cast<ssize_t>(bytes)) ++wrong;
                {
                    FarBlock passing(bytes / 4, round);
                    if (!passing.is_intact()) ++wrong;
                    if (read(zeros, passing.data(), passing.bytes()) != static_cast<ssize_t>(passing.bytes()))
                        ++wrong;
                    for (std::size_t at = 0; at < passing.bytes(); at += 512)
                        if (passing.data()[at] != std::byte{0}) ++wrong;
                }
                block.rewrite(100 * round + thread);
                ++rounds[thread];
            }
            close(null);
            close(zeros);
        });
    }
    const auto all_did = [&](unsigned more) {
        std::vector<unsigned> from(rounds.begin(), rounds.end());
        for (unsigned thread = 0; thread < threads_count; ++thread)
            while (rounds[thread] < from[thread] + more && wrong == 0) sched_yield();
    };
    all_did(2);
    std::vector<std::thread> askers;
    std::atomic<unsigned> refused{0};
    for (int asker = 0; asker < 3; ++asker) {
        askers.emplace_back([&] {
            const Transfers transfers;
            if (transfers.error() != 0) ++refused;
        });
    }
    for (std::thread& asker : askers) asker.join();
    EXPECT_EQ(refused, 0u);
    all_did(2);
    FarBlock block(large_bytes, 3);
    Transfers transfers;
    EXPECT_STREQ(transfers.go_both_ways('n', block), nullptr);
    done = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0u);
}

TEST(LateRing, ThenAFork) {
    FarBlock block(large_bytes, 4);
    ASSERT_TRUE(becomes_mostly_far(block));
    Transfers transfers;
    ASSERT_EQ(transfers.error(), 0);
    for (int round = 0; round < 3; ++round) {
        ASSERT_TRUE(becomes_mostly_far(block));
        EXPECT_EQ(exit_code_of_child([&] { return transfers_in_child(block); }), 0);
        EXPECT_TRUE(block.is_intact());
    }
    EXPECT_STREQ(transfers.go_both_ways('f', block), nullptr);
}

// Its parent goes on inline.
TEST(LateRing, InAForkedChild) {
    FarBlock block(large_bytes, 5);
    for (int round = 0; round < 3; ++round) {
        ASSERT_TRUE(becomes_mostly_far(block));
        EXPECT_EQ(exit_code_of_child([&] { return transfers_in_child(block); }), 0);
        EXPECT_TRUE(block.is_intact());
    }
}

// Nothing is far yet, so the child's heap starts over.
TEST(LateRing, InAForkedChildWithNothingFar) {
    const FarBlock small(std::size_t{6} << 20, 6);  // past the activation size, below the limit
    EXPECT_EQ(exit_code_of_child([&] { return transfers_in_child(small); }), 0);
    EXPECT_TRUE(small.is_intact());
}

// The child shares this memory, but what is opened while it lives it has not got: it may not have a ring, and
// while it lives nobody may.
TEST(LateRing, NotWhileAChildOfVforkLives) {
    FarBlock block(large_bytes, 7);
    ASSERT_TRUE(becomes_mostly_far(block));
    int told[2];
    int go_on[2];
    ASSERT_EQ(pipe2(told, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(go_on, O_CLOEXEC), 0);
    std::thread parent([&] {
        const pid_t child = vfork();
        if (child == 0) {
            io_uring ring;
            const char refused = io_uring_queue_init(4, &ring, 0) == -EPERM ? 'r' : 'n';
            char byte = 0;
            if (write(told[1], &refused, 1) != 1 || read(go_on[0], &byte, 1) != 1) _exit(1);
            _exit(block.page_is_intact(5) ? 0 : 2);
        }
        int status = 0;
        EXPECT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
    });
    char byte = 0;
    ASSERT_EQ(read(told[0], &byte, 1), 1);
    EXPECT_EQ(byte, 'r');
    {
        const Transfers refused(1);
        EXPECT_EQ(refused.error(), -EPERM);
    }
    EXPECT_TRUE(block.is_intact());
    EXPECT_EQ(write(go_on[1], "x", 1), 1);
    parent.join();
    Transfers transfers;
    ASSERT_EQ(transfers.error(), 0);
    EXPECT_STREQ(transfers.go_both_ways('v', block), nullptr);
    EXPECT_TRUE(block.is_intact());
}

TEST(LateRing, NotWhereAThreadHasItsOwnDescriptors) {
    FarBlock block(large_bytes, 8);
    ASSERT_TRUE(becomes_mostly_far(block));
    std::atomic<bool> parted{false};
    std::atomic<bool> done{false};
    std::thread apart([&] {
        EXPECT_EQ(unshare(CLONE_FILES), 0);
        parted = true;
        while (!done) EXPECT_TRUE(block.is_intact());
    });
    while (!parted) sched_yield();
    const Transfers refused(1);
    EXPECT_EQ(refused.error(), -EPERM);
    done = true;
    apart.join();
    EXPECT_TRUE(block.is_intact());
}

// As a user who may have no full userfaultfd.
TEST(RefusedRing, WhereThereIsNoRightToHandlerThreads) {
    FarBlock block(large_bytes, 2);
    ASSERT_TRUE(becomes_mostly_far(block));
    for (int round = 0; round < 2; ++round) {
        const Transfers refused(1);
        EXPECT_EQ(refused.error(), -EPERM);
    }
    EXPECT_TRUE(block.is_intact());
}

}  // namespace
