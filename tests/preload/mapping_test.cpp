// What mmap() and its family promise for memory that is the heap's: docs/behaviour.md, row by row. That they
// do what the kernel does is for mapping_model_test; here is what only a tier can get wrong.
#include <gtest/gtest.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "far_memory.h"
#include "mapping_twin.h"

namespace {

using namespace preload_test;

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr int private_anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr int read_write = PROT_READ | PROT_WRITE;

bool captures() {
    const char* capture = std::getenv("PNODE_CAPTURE");
    return capture == nullptr || std::string(capture).find("mmap") != std::string::npos;
}

bool captures_hints() {
    const char* capture = std::getenv("PNODE_CAPTURE");
    return capture != nullptr && std::string(capture).find("hints") != std::string::npos;
}

// A mapping whose every word is known.
class Mapped {
  public:
    explicit Mapped(std::size_t bytes, int flags = private_anonymous)
        : words_(static_cast<std::uint64_t*>(mmap(nullptr, bytes, read_write, flags, -1, 0))), bytes_(bytes) {
        if (words_ == MAP_FAILED) std::abort();
        fill(0, bytes);
    }
    ~Mapped() {
        if (words_ != nullptr) munmap(words_, bytes_);
    }
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;

    void fill(std::size_t from, std::size_t end) {
        for (std::size_t i = from / 8; i < end / 8; ++i) words_[i] = i & ~std::size_t{3};
    }
    bool is_intact(std::size_t from, std::size_t end) const {
        for (std::size_t i = from / 8; i < end / 8; ++i) {
            if (words_[i] != (i & ~std::size_t{3})) return false;
        }
        return true;
    }
    bool is_intact() const { return is_intact(0, bytes_); }
    bool is_zero(std::size_t from, std::size_t end) const {
        for (std::size_t i = from / 8; i < end / 8; ++i) {
            if (words_[i] != 0) return false;
        }
        return true;
    }
    // Asks for it, so that the range is far now but for what somebody touches.
    bool goes_far() const {
        madvise(data(), bytes_, MADV_PAGEOUT);
        return resident_pages(data(), bytes_) <= bytes_ / page_bytes / 8;
    }
    // After an mremap().
    void is_now(void* address, std::size_t bytes) {
        words_ = static_cast<std::uint64_t*>(address);
        bytes_ = bytes;
    }
    std::byte* data() const { return reinterpret_cast<std::byte*>(words_); }
    std::byte* at(std::size_t offset) const { return data() + offset; }
    std::size_t bytes() const { return bytes_; }

  private:
    std::uint64_t* words_;
    std::size_t bytes_;
};

sigjmp_buf after_fault;

void on_fault(int signal) {
    siglongjmp(after_fault, signal);
}

// The signal that an access ends with; 0 for none.
template <class Access>
int signal_of(Access access) {
    struct sigaction action {};
    struct sigaction before[2] = {};
    action.sa_handler = on_fault;
    sigaction(SIGSEGV, &action, &before[0]);
    sigaction(SIGBUS, &action, &before[1]);
    const int signal = sigsetjmp(after_fault, 1);
    if (signal == 0) access();
    sigaction(SIGSEGV, &before[0], nullptr);
    sigaction(SIGBUS, &before[1], nullptr);
    return signal;
}

int signal_of_read(const std::byte* at) {
    return signal_of([&] { [[maybe_unused]] const auto byte = *static_cast<const volatile std::byte*>(at); });
}

bool read_is_refused(const std::byte* at) {
    return signal_of_read(at) == SIGSEGV;
}
bool write_is_refused(std::byte* at) {
    return signal_of([&] { *static_cast<volatile std::byte*>(at) = std::byte{1}; }) == SIGSEGV;
}

// ---- which mappings are taken ----

TEST(Capture, ALargePrivateAnonymousMappingGoesFarAndComesBack) {
    const Mapped mapped(4 * mib);
    EXPECT_EQ(mapped.goes_far(), captures());
    EXPECT_TRUE(mapped.is_intact());
}

TEST(Capture, ASmallOneIsTheKernels) {
    const Mapped mapped(mib / 2);
    EXPECT_FALSE(mapped.goes_far());
}

TEST(Capture, SharedOnesAndStacksAreTheKernels) {
    const Mapped shared(2 * mib, MAP_SHARED | MAP_ANONYMOUS);
    madvise(shared.data(), shared.bytes(), MADV_PAGEOUT);
    if (fork() == 0) {
        *shared.at(mib) = std::byte{0xa5};
        _exit(0);
    }
    wait(nullptr);
    EXPECT_EQ(*shared.at(mib), std::byte{0xa5});
    const Mapped stack(2 * mib, private_anonymous | MAP_STACK);
    EXPECT_FALSE(stack.goes_far());
}

TEST(Capture, AHintIsTheKernelsUnlessAskedFor) {
    void* const wish = reinterpret_cast<void*>(std::uintptr_t{0x5e0000000000});
    void* const there = mmap(wish, 2 * mib, read_write, private_anonymous, -1, 0);
    EXPECT_EQ(there == wish, !captures_hints());
    std::memset(there, 7, 2 * mib);
    madvise(there, 2 * mib, MADV_PAGEOUT);
    EXPECT_EQ(resident_pages(there, 2 * mib) < mib / page_bytes, captures_hints());
    EXPECT_EQ(static_cast<std::byte*>(there)[mib], std::byte{7});
    munmap(there, 2 * mib);
}

TEST(Capture, ErrnoIsLeftAlone) {
    errno = 77;
    const Mapped mapped(2 * mib);
    mapped.goes_far();
    EXPECT_EQ(mprotect(mapped.data(), mapped.bytes(), PROT_READ), 0);
    EXPECT_TRUE(mapped.is_intact());
    EXPECT_EQ(munmap(mapped.at(mib), page_bytes), 0);
    EXPECT_EQ(errno, 77);
}

// Allocators reserve much and use little.
TEST(Capture, AReservationCostsNothingUntilItIsCommitted) {
    constexpr std::size_t reserved = 2048 * mib;
    void* const area = mmap(nullptr, reserved, PROT_NONE, private_anonymous | MAP_NORESERVE, -1, 0);
    ASSERT_NE(area, MAP_FAILED);
    auto* const bytes = static_cast<std::byte*>(area);
    EXPECT_TRUE(read_is_refused(bytes + reserved / 2));
    for (std::size_t at = 0; at < reserved; at += reserved / 8) {
        ASSERT_EQ(mprotect(bytes + at, 2 * mib, read_write), 0);
        std::memset(bytes + at, 7, 2 * mib);
        void* const over = mmap(bytes + at + 4 * mib, mib, read_write, private_anonymous | MAP_FIXED, -1, 0);
        ASSERT_EQ(over, bytes + at + 4 * mib);
        EXPECT_EQ(bytes[at + 4 * mib], std::byte{0});
        EXPECT_TRUE(read_is_refused(bytes + at + 3 * mib));
    }
    for (std::size_t at = 0; at < reserved; at += reserved / 8) EXPECT_EQ(bytes[at + mib], std::byte{7});
    // Given back as a JVM does it: a reservation over it.
    ASSERT_EQ(mmap(bytes, 2 * mib, PROT_NONE, private_anonymous | MAP_NORESERVE | MAP_FIXED, -1, 0), bytes);
    EXPECT_TRUE(read_is_refused(bytes));
    EXPECT_EQ(munmap(area, reserved), 0);
}

// ---- protection ----

TEST(Protection, FarPagesComeBackUnderReadOnly) {
    const Mapped mapped(4 * mib);
    mapped.goes_far();
    ASSERT_EQ(mprotect(mapped.data(), mapped.bytes(), PROT_READ), 0);
    EXPECT_TRUE(mapped.is_intact());
    EXPECT_TRUE(write_is_refused(mapped.at(mib)));
    mapped.goes_far();
    EXPECT_TRUE(mapped.is_intact());
    ASSERT_EQ(mprotect(mapped.data(), mapped.bytes(), read_write), 0);
    EXPECT_FALSE(write_is_refused(mapped.at(mib)));
}

TEST(Protection, NoneRefusesAndKeepsContents) {
    const Mapped mapped(4 * mib);
    mapped.goes_far();
    ASSERT_EQ(mprotect(mapped.at(mib), 2 * mib, PROT_NONE), 0);
    for (const std::size_t at : {mib, 2 * mib, 3 * mib - page_bytes})
        EXPECT_TRUE(read_is_refused(mapped.at(at)));
    EXPECT_TRUE(mapped.is_intact(0, mib));
    mapped.goes_far();
    ASSERT_EQ(mprotect(mapped.at(mib), 2 * mib, read_write), 0);
    EXPECT_TRUE(mapped.is_intact());
}

TEST(Protection, WhatWasUnmappedIsGone) {
    const Mapped mapped(4 * mib);
    mapped.goes_far();
    ASSERT_EQ(munmap(mapped.at(mib), mib), 0);
    EXPECT_TRUE(read_is_refused(mapped.at(mib)));
    EXPECT_TRUE(read_is_refused(mapped.at(2 * mib - page_bytes)));
    EXPECT_TRUE(mapped.is_intact(0, mib));
    EXPECT_TRUE(mapped.is_intact(2 * mib, 4 * mib));
}

TEST(Protection, WithoutAKeyItIsMprotect) {
    const Mapped mapped(4 * mib);
    mapped.goes_far();
    ASSERT_EQ(pkey_mprotect(mapped.data(), mib, PROT_READ, -1), 0);
    EXPECT_TRUE(write_is_refused(mapped.data()));
    EXPECT_TRUE(mapped.is_intact());
    // A reservation counts when this makes it accessible: then it can go far.
    void* const area = mmap(nullptr, 4 * mib, PROT_NONE, private_anonymous | MAP_NORESERVE, -1, 0);
    ASSERT_EQ(pkey_mprotect(area, 4 * mib, read_write, -1), 0);
    std::memset(area, 7, 4 * mib);
    madvise(area, 4 * mib, MADV_PAGEOUT);
    EXPECT_EQ(resident_pages(area, 4 * mib) < mib / page_bytes, captures());
    EXPECT_EQ(static_cast<std::byte*>(area)[2 * mib], std::byte{7});
    munmap(area, 4 * mib);
    // A key that nobody allocated, and one that is no key.
    for (const int key : {5, 4711}) {
        errno = 0;
        EXPECT_EQ(pkey_mprotect(mapped.data(), mib, read_write, key), -1);
        EXPECT_EQ(errno, EINVAL);
    }
    EXPECT_TRUE(write_is_refused(mapped.data()));
}

TEST(Protection, KeysAreNotToBeHad) {
    errno = 0;
    EXPECT_EQ(pkey_alloc(0, 0), -1);
    EXPECT_EQ(errno, ENOSPC);
    errno = 0;
    EXPECT_EQ(pkey_alloc(1, 0), -1);
    EXPECT_EQ(errno, EINVAL);
}

// ---- the break ----

// Both breaks start at a page and do the same random steps. Not where there is but one.
TEST(Break, IsTheKernelsTwin) {
    const auto kernel_break = [](std::uintptr_t wanted) {
        return static_cast<std::uintptr_t>(syscall(SYS_brk, wanted));
    };
    auto* const base = static_cast<std::byte*>(sbrk(0));
    const std::uintptr_t start = (kernel_break(0) + page_bytes - 1) & ~(page_bytes - 1);
    auto* const twin = reinterpret_cast<std::byte*>(start);
    ASSERT_EQ(kernel_break(start), start);
    std::mt19937_64 random(7);
    std::size_t now = 0;
    for (int step = 0; step < 400; ++step) {
        const std::size_t wanted = step % 50 == 0 ? std::size_t{1} << 46 : random() % (4 * mib);
        const bool moved = kernel_break(start + wanted) == start + wanted;
        errno = 0;
        if (step % 2 == 0) {
            ASSERT_EQ(brk(base + wanted), moved ? 0 : -1) << step;
        } else {
            void* const before = sbrk(static_cast<std::intptr_t>(wanted - now));
            ASSERT_EQ(before, moved ? base + now : reinterpret_cast<std::byte*>(-1)) << step;
        }
        ASSERT_EQ(errno, moved ? 0 : ENOMEM) << step;
        if (moved) now = wanted;
        ASSERT_EQ(sbrk(0), base + now);
        if (now < 8) continue;
        ASSERT_EQ(std::memcmp(base, twin, now), 0) << step;  // what rose anew reads as zeros
        for (std::byte* memory : {base, twin}) std::memset(memory + now / 2, step, now / 4);
        if (step % 5 == 0) madvise(base, now & ~(page_bytes - 1), MADV_PAGEOUT);
    }
    ASSERT_EQ(brk(base), 0);
    kernel_break(start);
    EXPECT_TRUE(read_is_refused(base));
}

TEST(Break, WhatIsBelowItGoesFar) {
    constexpr std::size_t bytes = 4 * mib;
    auto* const before = static_cast<std::byte*>(sbrk(bytes + page_bytes));
    ASSERT_NE(before, reinterpret_cast<std::byte*>(-1));
    auto* const first = reinterpret_cast<std::byte*>(
        (reinterpret_cast<std::uintptr_t>(before) + page_bytes - 1) & ~(page_bytes - 1));
    std::memset(first, 9, bytes);
    madvise(first, bytes, MADV_PAGEOUT);
    EXPECT_EQ(resident_pages(first, bytes) < bytes / page_bytes / 8, captures());
    const pid_t child = fork();
    if (child == 0) _exit(first[bytes - 1] == std::byte{9} && sbrk(mib) != nullptr ? 0 : 1);
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(first[bytes / 2], std::byte{9});
    EXPECT_EQ(sbrk(-static_cast<std::intptr_t>(bytes + page_bytes)), before + bytes + page_bytes);
    EXPECT_EQ(sbrk(0), before);
}

// ---- moving ----

TEST(Remap, FarPagesMoveWithoutComingNear) {
    Mapped mapped(8 * mib);
    const bool was_far = mapped.goes_far();
    void* const behind = mmap(mapped.at(8 * mib), page_bytes, PROT_NONE,
                              private_anonymous | MAP_FIXED_NOREPLACE, -1, 0);  // in the way, or was already
    void* const moved = mremap(mapped.data(), 8 * mib, 16 * mib, MREMAP_MAYMOVE);
    ASSERT_NE(moved, MAP_FAILED);
    EXPECT_NE(moved, mapped.data());
    if (was_far) {
        EXPECT_LE(resident_pages(moved, 8 * mib), 8 * mib / page_bytes / 4);
    }
    EXPECT_TRUE(read_is_refused(mapped.data()));
    mapped.is_now(moved, 16 * mib);
    EXPECT_TRUE(mapped.is_intact(0, 8 * mib));
    EXPECT_TRUE(mapped.is_zero(8 * mib, 16 * mib));
    if (behind != MAP_FAILED) munmap(behind, page_bytes);
}

TEST(Remap, NearPagesMoveAndShrink) {
    Mapped mapped(8 * mib);
    void* const target = mmap(nullptr, 8 * mib, read_write, private_anonymous, -1, 0);
    ASSERT_EQ(mremap(mapped.data(), 8 * mib, 4 * mib, MREMAP_MAYMOVE | MREMAP_FIXED, target), target);
    EXPECT_TRUE(read_is_refused(mapped.data()));
    mapped.is_now(target, 8 * mib);
    EXPECT_TRUE(mapped.is_intact(0, 4 * mib));
    EXPECT_TRUE(mapped.is_zero(4 * mib, 8 * mib));
}

// Locks make two mappings of one: to be moved or to grow they are too many, not to shrink.
TEST(Remap, ManyMappingsShrinkAndDoNotGrow) {
    Mapped mapped(4 * mib);
    ASSERT_EQ(mlock(mapped.data(), 4 * page_bytes), 0);
    errno = 0;
    EXPECT_EQ(mremap(mapped.data(), 4 * mib, 8 * mib, MREMAP_MAYMOVE), MAP_FAILED);
    EXPECT_EQ(errno, EFAULT);
    EXPECT_EQ(mremap(mapped.data(), 4 * mib, 2 * mib, MREMAP_MAYMOVE), mapped.data());
    EXPECT_TRUE(read_is_refused(mapped.at(2 * mib)));
    mapped.is_now(mapped.data(), 2 * mib);
    EXPECT_TRUE(mapped.is_intact());
}

TEST(Remap, OutOfTheHeapAndBack) {
    Mapped mapped(4 * mib);
    mapped.goes_far();
    void* const outside = mmap(reinterpret_cast<void*>(std::uintptr_t{0x5f0000000000}), 4 * mib, PROT_NONE,
                               private_anonymous, -1, 0);
    ASSERT_EQ(mremap(mapped.data(), 4 * mib, 4 * mib, MREMAP_MAYMOVE | MREMAP_FIXED, outside), outside);
    mapped.is_now(outside, 4 * mib);
    EXPECT_TRUE(mapped.is_intact());
    const Mapped target(4 * mib);
    void* const back = mremap(outside, 4 * mib, 4 * mib, MREMAP_MAYMOVE | MREMAP_FIXED, target.data());
    ASSERT_EQ(back, target.data());
    EXPECT_TRUE(target.is_intact());
    mapped.is_now(nullptr, 0);
    EXPECT_TRUE(read_is_refused(static_cast<std::byte*>(outside)));
}

// Beside swap_test.cpp they are swapped out: before they are watched, and when they are.
TEST(Remap, PagesThatAreLeftAloneMove) {
    const auto moved = [](Mapped& mapped) {
        usleep(50'000);
        Mapped target(4 * mib);
        ASSERT_EQ(mremap(mapped.data(), 4 * mib, 4 * mib, MREMAP_MAYMOVE | MREMAP_FIXED, target.data()),
                  target.data());
        mapped.is_now(target.data(), 4 * mib);
        target.is_now(nullptr, 0);
    };
    for (int round = 0; round < 4; ++round) {
        Mapped mapped(4 * mib);
        usleep(50'000);
        const Mapped pressing(48 * mib);
        moved(mapped);
        EXPECT_TRUE(mapped.is_intact()) << round;
        moved(mapped);
        EXPECT_TRUE(mapped.is_intact()) << round;
    }
}

TEST(Remap, ManyThreadsReadWhileItMoves) {
    Mapped mapped(4 * mib);
    std::atomic<std::byte*> current{mapped.data()};
    std::atomic<bool> stop{false};
    std::thread writer([&] {  // keeps the heap busy beside it
        while (!stop) {
            const Mapped other(2 * mib);
            other.goes_far();
            if (!other.is_intact()) std::abort();
        }
    });
    for (int round = 0; round < 24; ++round) {
        madvise(current, 4 * mib, round % 2 == 0 ? MADV_PAGEOUT : MADV_COLD);
        void* const target = mmap(nullptr, 4 * mib, read_write, private_anonymous, -1, 0);
        ASSERT_NE(target, MAP_FAILED);
        ASSERT_EQ(mremap(current, 4 * mib, 4 * mib, MREMAP_MAYMOVE | MREMAP_FIXED, target), target);
        current = static_cast<std::byte*>(target);
        mapped.is_now(target, 4 * mib);
        ASSERT_TRUE(mapped.is_intact());
    }
    stop = true;
    writer.join();
}

// ---- files over managed pages ----

// A file of two pages, over the first six of a mapping.
class FileOver {
  public:
    explicit FileOver(const Mapped& mapped) : fd_(static_cast<int>(syscall(SYS_memfd_create, "file", 0))) {
        if (ftruncate(fd_, 2 * page_bytes) != 0) std::abort();
        if (mmap(mapped.data(), 6 * page_bytes, read_write, MAP_SHARED | MAP_FIXED, fd_, 0) != mapped.data())
            std::abort();
    }
    ~FileOver() { close(fd_); }
    FileOver(const FileOver&) = delete;
    FileOver& operator=(const FileOver&) = delete;

  private:
    int fd_;
};

TEST(File, PastItsEndAnAccessRaisesSigbus) {
    const Mapped mapped(2 * mib);
    const FileOver file(mapped);
    const auto check = [&] {
        return signal_of_read(mapped.at(page_bytes)) == 0 &&
               signal_of_read(mapped.at(2 * page_bytes)) == SIGBUS && mapped.is_intact(6 * page_bytes, mib);
    };
    EXPECT_TRUE(check());
    const pid_t child = fork();
    if (child == 0) _exit(check() ? 0 : 1);
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

// A page that cannot be filled fails the call, and what follows is locked nevertheless.
TEST(File, ALockPastItsEndFailsAndLocksTheRest) {
    const Mapped mapped(2 * mib);
    const FileOver file(mapped);
    errno = 0;
    EXPECT_EQ(mlock(mapped.data(), 8 * page_bytes), -1);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(madvise(mapped.at(7 * page_bytes), page_bytes, MADV_DONTNEED), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_EQ(munlock(mapped.data(), 8 * page_bytes), 0);
    EXPECT_EQ(madvise(mapped.at(7 * page_bytes), page_bytes, MADV_DONTNEED), 0);
}

// ---- advice ----

TEST(Advice, DontneedAndFreeReadZerosNearAndFar) {
    const Mapped mapped(4 * mib);
    mapped.goes_far();
    EXPECT_TRUE(mapped.is_intact(0, mib));
    ASSERT_EQ(madvise(mapped.at(0), 2 * mib, MADV_DONTNEED), 0);
    EXPECT_TRUE(mapped.is_zero(0, 2 * mib));
    if (captures()) {
        ASSERT_EQ(madvise(mapped.at(2 * mib), mib, MADV_FREE), 0);
        EXPECT_TRUE(mapped.is_zero(2 * mib, 3 * mib));
    }
    EXPECT_TRUE(mapped.is_intact(3 * mib, 4 * mib));
    EXPECT_EQ(posix_madvise(mapped.at(3 * mib), mib, POSIX_MADV_DONTNEED), 0);
    EXPECT_TRUE(mapped.is_intact(3 * mib, 4 * mib));
    EXPECT_EQ(posix_madvise(mapped.at(1), mib, POSIX_MADV_WILLNEED), EINVAL);
}

TEST(Advice, WillneedBringsNear) {
    const Mapped mapped(2 * mib);
    mapped.goes_far();
    ASSERT_EQ(madvise(mapped.data(), 64 * page_bytes, MADV_WILLNEED), 0);
    EXPECT_TRUE(mapped.is_intact());
}

TEST(Advice, LargePagesAreAcceptedAndNotUsed) {
    const Mapped mapped(4 * mib);
    EXPECT_EQ(madvise(mapped.data(), mapped.bytes(), MADV_HUGEPAGE), 0);
    EXPECT_TRUE(mapped.goes_far());
}

// Of the mapping there.
bool is_to_be_merged(const std::byte* at) {
    std::ifstream smaps("/proc/thread-self/smaps");
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    bool is_it = false;
    for (std::string line; std::getline(smaps, line);) {
        std::uintptr_t first = 0, end = 0;
        if (std::sscanf(line.c_str(), "%zx-%zx ", &first, &end) == 2)
            is_it = first <= address && address < end;
        if (is_it && line.starts_with("VmFlags:")) return line.find(" mg") != std::string::npos;
    }
    return false;
}

// The kernel would forget their write protection.
TEST(Advice, ManagedPagesAreNotMerged) {
    constexpr int set_memory_merge = 67;  // PR_SET_MEMORY_MERGE
    if (!captures()) return;
    if (prctl(set_memory_merge, 1, 0, 0, 0) != 0)
        GTEST_SKIP() << "this kernel merges no pages for a process (Linux 6.4, KSM)";
    const Mapped small(64 << 10);  // the kernel's
    EXPECT_TRUE(is_to_be_merged(small.data()));
    Mapped mapped(8 * mib);
    mapped.goes_far();
    EXPECT_FALSE(is_to_be_merged(mapped.data()));
    EXPECT_TRUE(mapped.is_intact());
    EXPECT_EQ(prctl(set_memory_merge, 0, 0, 0, 0), 0);
}

TEST(Lock, LockedPagesStayNear) {
    const FarBlock pressure(16 * mib, 5);
    const Mapped mapped(2 * mib);
    ASSERT_EQ(mlock(mapped.at(mib) + 5, 100 * page_bytes), 0);
    EXPECT_TRUE(pressure.is_intact());
    EXPECT_EQ(resident_pages(mapped.at(mib), 101 * page_bytes), 101U);
    errno = 0;
    EXPECT_EQ(madvise(mapped.at(mib), page_bytes, MADV_PAGEOUT), -1);
    EXPECT_EQ(errno, EINVAL);
    ASSERT_EQ(munlock(mapped.at(mib), mib), 0);
    mapped.goes_far();
    EXPECT_TRUE(mapped.is_intact());
}

TEST(Lock, AllAndNoneAgain) {
    const Mapped mapped(2 * mib);
    mapped.goes_far();
    ASSERT_EQ(mlockall(MCL_CURRENT), 0) << "raise RLIMIT_MEMLOCK (ulimit -l unlimited)";
    if (std::getenv("PNODE_STRESS") == nullptr) {  // which takes pages out whatever the limit is
        EXPECT_EQ(resident_pages(mapped.data(), mapped.bytes()), mapped.bytes() / page_bytes);
    }
    EXPECT_EQ(munlockall(), 0);
    mapped.goes_far();
    EXPECT_TRUE(mapped.is_intact());
}

TEST(InCore, FarPagesCountAsResident) {
    const Mapped mapped(2 * mib);
    const Mapped answer(mib);
    mapped.goes_far();
    answer.goes_far();
    auto* const far_answer = reinterpret_cast<unsigned char*>(answer.data());
    ASSERT_EQ(mincore(mapped.data(), mapped.bytes(), far_answer), 0);
    EXPECT_EQ(far_answer[0] & far_answer[511] & 1, 1);
    mapped.goes_far();
    std::vector<unsigned char> present(mapped.bytes() / page_bytes);
    ASSERT_EQ(mincore(mapped.data(), mapped.bytes(), present.data()), 0);
    for (const unsigned char page : present) ASSERT_EQ(page & 1, 1);
}

// As the kernel's own are when it swapped them out; an access brings them back.
TEST(InCore, PagesOfZerosThatLeftDoNot) {
    Mapped mapped(2 * mib);
    std::memset(mapped.data(), 0, mapped.bytes());
    std::vector<unsigned char> present(mapped.bytes() / page_bytes);
    const auto in_core = [&] {
        EXPECT_EQ(mincore(mapped.data(), mapped.bytes(), present.data()), 0);
        return std::count_if(present.begin(), present.end(),
                             [](unsigned char page) { return (page & 1) != 0; });
    };
    mapped.goes_far();
    EXPECT_EQ(in_core(), 0);
    EXPECT_EQ(*static_cast<volatile char*>(static_cast<void*>(mapped.data())), 0);
    EXPECT_GE(in_core(), 1);
}

// ---- a stack, and fork ----

constexpr std::size_t stack_bytes = 2 * mib;

void* fork_on_this_stack(void* far) {
    for (int round = 0; round < 8; ++round) {
        const pid_t child = fork();
        if (child == 0) _exit(static_cast<Mapped*>(far)->is_intact() ? 0 : 1);
        int status = -1;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return far;
        static_cast<Mapped*>(far)->goes_far();
    }
    return nullptr;
}

TEST(Stack, AForkOnAStackInTheHeapIsServed) {
    Mapped far(4 * mib);
    far.goes_far();
    const Mapped stack(stack_bytes);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    ASSERT_EQ(pthread_attr_setstack(&attributes, stack.data(), stack.bytes()), 0);
    pthread_t thread;
    ASSERT_EQ(pthread_create(&thread, &attributes, fork_on_this_stack, &far), 0);
    void* wrong = &far;
    pthread_join(thread, &wrong);
    EXPECT_EQ(wrong, nullptr);
    pthread_attr_destroy(&attributes);
}

// A thread's stack is memory as any other when the thread has ended.
TEST(Stack, IsGivenBackWhenItsThreadEnded) {
    const FarBlock pressure(16 * mib, 6);
    for (int round = 0; round < 20; ++round) {
        void* const stack =
            mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(stack, MAP_FAILED);
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        ASSERT_EQ(pthread_attr_setstack(&attributes, stack, stack_bytes), 0);
        pthread_t thread;
        const auto work = [](void* far) -> void* {
            char name[16] = {};
            pthread_getname_np(pthread_self(), name, sizeof name);
            return name[0] != 0 ? nullptr : far;
        };
        ASSERT_EQ(pthread_create(&thread, &attributes, work, stack), 0);
        void* wrong = nullptr;
        ASSERT_EQ(pthread_join(thread, &wrong), 0);
        EXPECT_EQ(wrong, nullptr);
        pthread_attr_destroy(&attributes);
        if (round % 5 == 0) {
            EXPECT_TRUE(pressure.is_intact());
        }
        ASSERT_EQ(munmap(stack, stack_bytes), 0);
    }
}

// ---- many at once ----

TEST(Threads, MapWriteMoveAndUnmapTogether) {
    std::vector<std::thread> threads;
    std::atomic<int> broken{0};
    for (unsigned seed = 0; seed < 4; ++seed) {
        threads.emplace_back([seed, &broken] {
            std::mt19937 random(seed);
            for (int round = 0; round < 20; ++round) {
                const std::size_t bytes = mib + random() % 256 * page_bytes;
                Mapped mapped(bytes);
                mapped.goes_far();
                void* const moved = mremap(mapped.data(), bytes, 2 * bytes, MREMAP_MAYMOVE);
                if (moved == MAP_FAILED) ++broken;
                if (moved == MAP_FAILED) return;
                mapped.is_now(moved, 2 * bytes);
                if (!mapped.is_intact(0, bytes) || !mapped.is_zero(bytes, 2 * bytes)) ++broken;
                munmap(mapped.at(bytes), bytes);
                mapped.is_now(moved, bytes);  // what lay behind may be another thread's by now
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(broken, 0);
}

}  // namespace
