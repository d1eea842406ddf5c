// A userfaultfd of the program's own on memory that was the heap's (preload/userfaults.h): what it does is
// what it does without the library, whatever is far. A thread of the program's serves what is missing, as
// programs do.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "far_memory.h"
#include "forked.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFDIO_MOVE
struct uffdio_move {
    __u64 dst, src, len, mode;
    __s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

namespace {

using preload_test::becomes_far;
using preload_test::exit_code_of_child;
using preload_test::FarBlock;
using preload_test::page_bytes;
using preload_test::resident_pages;

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::uint64_t missing = UFFDIO_REGISTER_MODE_MISSING;
constexpr std::uint64_t write_protection = UFFDIO_REGISTER_MODE_WP;

bool captures() {
    const char* capture = std::getenv("PNODE_CAPTURE");
    return capture == nullptr || std::strstr(capture, "mmap") != nullptr;
}

// What a page with data holds, and what a handler fills in.
std::uint64_t data_of(std::size_t page) {
    return (std::uint64_t{7} << 40) + page;
}
std::uint64_t filling_of(std::size_t page) {
    return (std::uint64_t{9} << 40) + page;
}

class Pages {
  public:
    explicit Pages(std::size_t count)
        : words_(static_cast<std::uint64_t*>(
              mmap(nullptr, count * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))),
          count_(count) {
        if (words_ == MAP_FAILED) std::abort();
    }
    ~Pages() { munmap(words_, count_ * page_bytes); }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    void write(std::size_t page, std::uint64_t value) {
        for (std::size_t i = 0; i < words_a_page; ++i) at(page)[i] = value;
    }
    void write_data(std::size_t first, std::size_t end) {
        for (std::size_t page = first; page < end; ++page) write(page, data_of(page));
    }
    bool holds(std::size_t page, std::uint64_t value) const {
        for (std::size_t i = 0; i < words_a_page; ++i) {
            if (at(page)[i] != value) return false;
        }
        return true;
    }
    std::size_t wrong_data(std::size_t first, std::size_t end) const {
        std::size_t wrong = 0;
        for (std::size_t page = first; page < end; ++page) wrong += holds(page, data_of(page)) ? 0 : 1;
        return wrong;
    }
    // Where it is the heap's.
    bool goes_far() const {
        if (!captures()) return true;
        madvise(words_, count_ * page_bytes, MADV_PAGEOUT);
        return resident_pages(words_, count_ * page_bytes) <= count_ / 8;
    }
    volatile std::uint64_t* at(std::size_t page) const { return words_ + page * words_a_page; }
    std::uint64_t address(std::size_t page = 0) const {
        return reinterpret_cast<std::uint64_t>(words_ + page * words_a_page);
    }
    std::size_t page_of(std::uint64_t address) const { return (address - this->address()) / page_bytes; }
    std::size_t count() const { return count_; }

  private:
    static constexpr std::size_t words_a_page = page_bytes / sizeof(std::uint64_t);
    std::uint64_t* words_;
    std::size_t count_;
};

class Userfaultfd {
  public:
    explicit Userfaultfd(std::uint64_t features = 0, int flags = 0)
        : fd_(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags))) {
        uffdio_api api{};
        api.api = UFFD_API;
        api.features = features;
        error_ = fd_ < 0 || ioctl(fd_, UFFDIO_API, &api) != 0 ? errno : 0;
    }
    ~Userfaultfd() { close_now(); }
    Userfaultfd(const Userfaultfd&) = delete;
    Userfaultfd& operator=(const Userfaultfd&) = delete;

    void close_now() {
        if (fd_ >= 0) close(fd_);
        fd_ = -1;
    }
    // 0 or an errno, each.
    int error() const { return error_; }
    int watch(std::uint64_t address, std::size_t pages, std::uint64_t mode = missing) {
        uffdio_register argument{};
        argument.range = {address, pages * page_bytes};
        argument.mode = mode;
        if (ioctl(fd_, UFFDIO_REGISTER, &argument) != 0) return errno;
        offered_ = argument.ioctls;
        return 0;
    }
    int leave(std::uint64_t address, std::size_t pages) const {
        uffdio_range argument{address, pages * page_bytes};
        return ioctl(fd_, UFFDIO_UNREGISTER, &argument) != 0 ? errno : 0;
    }
    int copy(std::uint64_t to, const volatile void* from, std::size_t bytes,
             std::int64_t* done = nullptr) const {
        uffdio_copy argument{};
        argument.dst = to;
        argument.src = reinterpret_cast<std::uint64_t>(from);
        argument.len = bytes;
        const int error = ioctl(fd_, UFFDIO_COPY, &argument) != 0 ? errno : 0;
        if (done != nullptr) *done = argument.copy;
        return error;
    }
    int zero(std::uint64_t to, std::size_t pages) const {
        uffdio_zeropage argument{};
        argument.range = {to, pages * page_bytes};
        return ioctl(fd_, UFFDIO_ZEROPAGE, &argument) != 0 ? errno : 0;
    }
    int protect(std::uint64_t address, std::size_t pages, bool on) const {
        uffdio_writeprotect argument{};
        argument.range = {address, pages * page_bytes};
        argument.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
        return ioctl(fd_, UFFDIO_WRITEPROTECT, &argument) != 0 ? errno : 0;
    }
    int fd() const { return fd_; }
    std::uint64_t offered() const { return offered_; }

  private:
    int fd_;
    int error_ = 0;
    std::uint64_t offered_ = 0;
};

// Serves each message by `serve`, until it is destroyed.
class Server {
  public:
    Server(const Userfaultfd& watcher, std::function<void(const uffd_msg&)> serve)
        : watcher_(watcher), serve_(std::move(serve)) {
        if (pipe2(end_, O_CLOEXEC) != 0) std::abort();
        thread_ = std::thread([this] { run(); });
    }
    ~Server() {
        close(end_[1]);
        thread_.join();
        close(end_[0]);
    }
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

  private:
    void run() {
        const auto message = std::make_unique<uffd_msg>();  // in the heap, and may be far
        for (;;) {
            pollfd waits[] = {{watcher_.fd(), POLLIN, 0}, {end_[0], POLLIN, 0}};
            if (poll(waits, 2, -1) < 0) continue;
            if (waits[1].revents != 0) return;
            if (read(watcher_.fd(), message.get(), sizeof *message) == sizeof *message) serve_(*message);
        }
    }
    const Userfaultfd& watcher_;
    std::function<void(const uffd_msg&)> serve_;
    int end_[2] = {-1, -1};
    std::thread thread_;
};

// Fills missing pages of `pages` from a buffer of the heap, and counts them.
class Filler {
  public:
    Filler(const Userfaultfd& watcher, const Pages& pages)
        : counts_(pages.count()), source_(1), server_(watcher, [&](const uffd_msg& message) {
              if (message.event != UFFD_EVENT_PAGEFAULT) return;
              const std::size_t page = pages.page_of(message.arg.pagefault.address);
              source_.write(0, filling_of(page));
              if (page < counts_.size()) ++counts_[page];  // before the access goes on
              const int error = watcher.copy(pages.address(page), source_.at(0), page_bytes);
              if (error == ENOENT) ++too_late_;
              if (error != 0 && error != EEXIST && error != ENOENT) error_ = error;
          }) {}
    unsigned count(std::size_t page) const { return counts_[page]; }
    unsigned count(std::size_t first, std::size_t end) const {
        unsigned count = 0;
        for (std::size_t page = first; page < end; ++page) count += counts_[page];
        return count;
    }
    // The page was not watched any more: whoever wants it goes on without.
    unsigned too_late() const { return too_late_; }
    int error() const { return error_; }  // another, the last one

  private:
    std::vector<std::atomic<unsigned>> counts_;
    std::atomic<unsigned> too_late_{0};
    std::atomic<int> error_{0};
    Pages source_;
    Server server_;
};

sigjmp_buf after_fault;
std::atomic<std::uint64_t> fault_address{0};

void on_sigbus(int, siginfo_t* info, void*) {
    fault_address = reinterpret_cast<std::uint64_t>(info->si_addr);
    siglongjmp(after_fault, 1);
}

// Where the access raises SIGBUS; 0: it does not.
template <class Access>
std::uint64_t sigbus_of(Access access) {
    struct sigaction action {};
    struct sigaction before {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &action, &before);
    fault_address = 0;
    if (sigsetjmp(after_fault, 1) == 0) access();
    sigaction(SIGBUS, &before, nullptr);
    return fault_address;
}

// A first half with data, one page of written zeros in its middle, and a second half that nobody touched.
class Userfaults : public ::testing::Test {
  protected:
    static constexpr std::size_t pages = 2048;
    static constexpr std::size_t half = pages / 2;
    static constexpr std::size_t zeros = half / 2;
    void SetUp() override {
        memory_ = std::make_unique<Pages>(pages);
        memory_->write_data(0, half);
        memory_->write(zeros, 0);
        ASSERT_TRUE(memory_->goes_far());
    }
    std::size_t wrong_data() const {
        return memory_->wrong_data(0, zeros) + memory_->wrong_data(zeros + 1, half) +
               (memory_->holds(zeros, 0) ? 0 : 1);
    }
    std::unique_ptr<Pages> memory_;
};

TEST_F(Userfaults, DataStaysAndWhatWasNeverTouchedIsMissing) {
    Userfaultfd watcher;
    ASSERT_EQ(watcher.error(), 0);
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    EXPECT_NE(watcher.offered() & (std::uint64_t{1} << _UFFDIO_COPY), 0u);
    EXPECT_NE(watcher.offered() & (std::uint64_t{1} << _UFFDIO_ZEROPAGE), 0u);
    const Filler filler(watcher, *memory_);
    EXPECT_EQ(wrong_data(), 0u);
    EXPECT_EQ(filler.count(0, half), 0u);
    for (std::size_t page = half; page < pages; ++page) {
        ASSERT_TRUE(memory_->holds(page, filling_of(page))) << page;
        ASSERT_EQ(filler.count(page), 1u) << page;
    }
    EXPECT_EQ(filler.error(), 0);
    EXPECT_EQ(filler.too_late(), 0u);
}

// Its own accesses find the program's handler too.
TEST_F(Userfaults, TheKernelFindsTheProgramsHandler) {
    Userfaultfd watcher;
    ASSERT_EQ(watcher.error(), 0);
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    const Filler filler(watcher, *memory_);
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    auto* const there = reinterpret_cast<char*>(memory_->address(half + 3));
    ASSERT_EQ(write(ends[1], there, 8), 8);
    std::uint64_t word = 0;
    ASSERT_EQ(read(ends[0], &word, sizeof word), 8);
    EXPECT_EQ(word, filling_of(half + 3));
    ASSERT_EQ(write(ends[1], "12345678", 8), 8);
    ASSERT_EQ(read(ends[0], reinterpret_cast<char*>(memory_->address(half + 4)), 8), 8);
    EXPECT_EQ(std::memcmp(reinterpret_cast<char*>(memory_->address(half + 4)), "12345678", 8), 0);
    EXPECT_EQ(memory_->at(half + 4)[1], filling_of(half + 4));
    // By the kernel's own way to call it, too: with iovecs in the missing page itself.
    ASSERT_EQ(syscall(SYS_write, ends[1], memory_->address(half + 5), 8), 8);
    EXPECT_EQ(filler.count(half + 5), 1u);
    close(ends[0]);
    close(ends[1]);
}

// For user mode alone the kernel's own access to a missing page is EFAULT.
TEST_F(Userfaults, OneForUserModeOnlyDoesNotServeTheKernel) {
    Userfaultfd watcher(0, UFFD_USER_MODE_ONLY);
    ASSERT_EQ(watcher.error(), 0);
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    const Filler filler(watcher, *memory_);
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    auto* const there = reinterpret_cast<char*>(memory_->address(half));
    EXPECT_EQ(write(ends[1], there, 8), -1);
    EXPECT_EQ(errno, EFAULT);
    EXPECT_EQ(syscall(SYS_write, ends[1], there, 8), -1);
    EXPECT_EQ(errno, EFAULT);
    EXPECT_TRUE(memory_->holds(half, filling_of(half)));
    EXPECT_EQ(write(ends[1], there, 8), 8);
    EXPECT_EQ(wrong_data(), 0u);
    close(ends[0]);
    close(ends[1]);
}

TEST_F(Userfaults, ItsSourceAndItsArgumentMayBeFar) {
    constexpr std::size_t source_pages = 1000;
    Pages source(source_pages);
    source.write_data(0, source_pages);
    Pages arguments(512);
    arguments.write_data(0, arguments.count());
    auto* const copy = reinterpret_cast<uffdio_copy*>(arguments.address());
    *copy = {memory_->address(half), source.address(), source_pages * page_bytes, 0, 0};
    auto* const range = reinterpret_cast<uffdio_register*>(arguments.address(1));
    *range = {{memory_->address(), pages * page_bytes}, missing, 0};
    ASSERT_TRUE(source.goes_far() && arguments.goes_far());
    Userfaultfd watcher;
    ASSERT_EQ(ioctl(watcher.fd(), UFFDIO_REGISTER, range), 0);
    EXPECT_NE(range->ioctls, 0u);
    ASSERT_TRUE(arguments.goes_far());
    ASSERT_EQ(ioctl(watcher.fd(), UFFDIO_COPY, copy), 0) << errno;
    EXPECT_EQ(copy->copy, static_cast<std::int64_t>(source_pages * page_bytes));
    for (std::size_t page = 0; page < source_pages; ++page)
        ASSERT_TRUE(memory_->holds(half + page, data_of(page))) << page;
    EXPECT_EQ(source.wrong_data(0, source_pages), 0u);
    // Some of the target is there already: all before it is filled, as the kernel says it.
    ASSERT_EQ(madvise(const_cast<std::uint64_t*>(memory_->at(half)), 300 * page_bytes, MADV_DONTNEED), 0);
    std::int64_t done = 0;
    EXPECT_EQ(watcher.copy(memory_->address(half), source.at(0), 512 * page_bytes, &done), EAGAIN);
    EXPECT_EQ(done, static_cast<std::int64_t>(300 * page_bytes));
    EXPECT_EQ(watcher.copy(memory_->address(half), source.at(0), 512 * page_bytes, &done), EEXIST);
    EXPECT_EQ(done, -EEXIST);
    // Where nothing is, EFAULT, as without us.
    EXPECT_EQ(watcher.copy(memory_->address(pages - 1), nullptr, page_bytes), EFAULT);
    EXPECT_EQ(ioctl(watcher.fd(), UFFDIO_REGISTER, nullptr), -1);
    EXPECT_EQ(errno, EFAULT);
}

TEST_F(Userfaults, WhatIsDroppedIsMissingAgain) {
    Userfaultfd watcher;
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    const Filler filler(watcher, *memory_);
    ASSERT_EQ(madvise(reinterpret_cast<void*>(memory_->address(8)), 8 * page_bytes, MADV_DONTNEED), 0);
    for (std::size_t page = 8; page < 16; ++page) EXPECT_TRUE(memory_->holds(page, filling_of(page)));
    EXPECT_EQ(filler.count(8, 16), 8u);
    EXPECT_EQ(memory_->wrong_data(16, zeros), 0u);
}

// A snapshot: each first write is told before it happens.
TEST_F(Userfaults, WritesToFarPagesAreTold) {
    Userfaultfd watcher(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
    ASSERT_EQ(watcher.error(), 0);
    ASSERT_EQ(watcher.watch(memory_->address(), half, write_protection), 0);
    ASSERT_EQ(watcher.protect(memory_->address(), half, true), 0);
    std::vector<std::uint64_t> before(half);
    std::atomic<unsigned> told{0};
    {
        const Server server(watcher, [&](const uffd_msg& message) {
            const std::size_t page = memory_->page_of(message.arg.pagefault.address);
            if ((message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) == 0 || page >= half) return;
            before[page] = *memory_->at(page);
            ++told;
            watcher.protect(memory_->address(page), 1, false);
        });
        for (std::size_t page = 0; page < half; page += 2) memory_->write(page, 1);
    }
    EXPECT_EQ(told, half / 2);
    for (std::size_t page = 0; page < half; ++page) {
        const std::uint64_t data = page == zeros ? 0 : data_of(page);
        ASSERT_TRUE(memory_->holds(page, page % 2 == 0 ? 1 : data)) << page;
        ASSERT_EQ(before[page], page % 2 == 0 ? data : 0) << page;
    }
}

TEST_F(Userfaults, LeftOrClosedItIsMemoryAsAnyOther) {
    for (const bool closes : {false, true}) {
        Userfaultfd watcher;
        ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
        if (closes) watcher.close_now();
        if (!closes) {
            ASSERT_EQ(watcher.leave(memory_->address(), pages), 0);
        }
        EXPECT_TRUE(memory_->holds(closes ? half + 1 : half, 0));
        EXPECT_EQ(wrong_data(), 0u);
    }
}

// Where it was unmapped or something new was mapped, memory is the heap's again.
TEST_F(Userfaults, WhatIsUnmappedComesBackToTheHeap) {
    Userfaultfd watcher;
    for (int round = 0; round < 20; ++round) {
        ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
        const std::uint64_t address = memory_->address();
        if (round % 2 == 0) {
            memory_.reset();
            memory_ = std::make_unique<Pages>(pages);
        } else {
            ASSERT_NE(mmap(reinterpret_cast<void*>(address), pages * page_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                      MAP_FAILED);
        }
        ASSERT_TRUE(memory_->holds(0, 0));
        ASSERT_TRUE(memory_->holds(pages - 1, 0));
        memory_->write_data(0, pages);
        ASSERT_TRUE(memory_->goes_far());
        ASSERT_EQ(memory_->wrong_data(0, pages), 0u);
    }
}

TEST_F(Userfaults, PartsAreWatchedAndTheRestGoesFar) {
    Userfaultfd watcher;
    for (std::size_t page = 0; page < pages; page += 64)
        ASSERT_EQ(watcher.watch(memory_->address(page), 16), 0);
    const Filler filler(watcher, *memory_);
    EXPECT_EQ(wrong_data(), 0u);
    EXPECT_EQ(filler.count(0, half), 0u);
    if (captures()) {
        // A quarter is the program's, and stays.
        madvise(reinterpret_cast<void*>(memory_->address()), half * page_bytes, MADV_PAGEOUT);
        EXPECT_LE(resident_pages(reinterpret_cast<void*>(memory_->address(16)), 48 * page_bytes), 6u);
    }
    EXPECT_EQ(wrong_data(), 0u);
    for (std::size_t page = half; page < pages; ++page)
        ASSERT_TRUE(memory_->holds(page, page % 64 < 16 ? filling_of(page) : 0)) << page;
    // Watched as a whole afterwards, holes of the heap's among it: all that is mapped is.
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    EXPECT_EQ(wrong_data(), 0u);
    ASSERT_EQ(munmap(reinterpret_cast<void*>(memory_->address(100)), 50 * page_bytes), 0);
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    ASSERT_EQ(watcher.leave(memory_->address(), pages), 0);
    EXPECT_EQ(memory_->wrong_data(0, 100) + memory_->wrong_data(150, zeros), 0u);
}

// What the kernel refuses without us is refused with the same errno, and the memory stays the heap's.
TEST_F(Userfaults, WhatIsRefusedChangesNothing) {
    Userfaultfd watcher;
    EXPECT_EQ(watcher.watch(memory_->address(), pages, 0), EINVAL);
    EXPECT_EQ(watcher.watch(memory_->address(), pages, 64), EINVAL);
    EXPECT_EQ(watcher.watch(memory_->address() + 1, pages), EINVAL);
    const int file = memfd_create("none", MFD_CLOEXEC);
    uffdio_register argument{{memory_->address(), pages * page_bytes}, missing, 0};
    EXPECT_EQ(ioctl(file, UFFDIO_REGISTER, &argument), -1);
    EXPECT_EQ(errno, ENOTTY);
    EXPECT_EQ(ioctl(-1, UFFDIO_REGISTER, &argument), -1);
    EXPECT_EQ(errno, EBADF);
    close(file);
    const int without_api = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
    EXPECT_EQ(ioctl(without_api, UFFDIO_REGISTER, &argument), -1);
    EXPECT_EQ(errno, EINVAL);
    close(without_api);
    memory_->write_data(0, half);
    EXPECT_TRUE(memory_->goes_far());
    EXPECT_EQ(memory_->wrong_data(0, half), 0u);
}

// The kernel does not ask with which userfaultfd a page is registered that another is to fill.
TEST_F(Userfaults, WhatIsNotWatchedIsNotFilled) {
    Pages source(1);
    source.write(0, 5);
    Userfaultfd watcher(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
    std::int64_t done = 0;
    EXPECT_EQ(watcher.copy(memory_->address(3), source.at(0), page_bytes, &done), ENOENT);
    EXPECT_EQ(done, -ENOENT);
    EXPECT_EQ(watcher.zero(memory_->address(4), 1), ENOENT);
    EXPECT_EQ(watcher.protect(memory_->address(5), 1, true), ENOENT);
    EXPECT_EQ(watcher.leave(memory_->address(), pages), 0);
    EXPECT_EQ(wrong_data(), 0u);
    EXPECT_TRUE(memory_->holds(half, 0));
}

TEST_F(Userfaults, PagesAreMovedInFromTheHeap) {
    Userfaultfd watcher(UFFD_FEATURE_MOVE);
    if (watcher.error() == EINVAL) GTEST_SKIP() << "this kernel has no UFFDIO_MOVE (Linux 6.8)";
    ASSERT_EQ(watcher.error(), 0);
    Pages source(512);
    source.write_data(0, source.count());
    ASSERT_TRUE(source.goes_far());
    ASSERT_EQ(watcher.watch(memory_->address(half), half), 0);
    uffdio_move move{memory_->address(half), source.address(), 512 * page_bytes, 0, 0};
    ASSERT_EQ(ioctl(watcher.fd(), UFFDIO_MOVE, &move), 0) << errno;
    EXPECT_EQ(move.move, static_cast<std::int64_t>(512 * page_bytes));
    for (std::size_t page = 0; page < 512; ++page) {
        ASSERT_TRUE(memory_->holds(half + page, data_of(page))) << page;
        ASSERT_TRUE(source.holds(page, 0)) << page;
    }
}

// A program may have its own SIGBUS for what is missing, and no other.
TEST_F(Userfaults, ASigbusOfAMissingPageIsThePrograms) {
    Userfaultfd watcher(UFFD_FEATURE_SIGBUS);
    ASSERT_EQ(watcher.error(), 0);
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    for (std::size_t page = half; page < half + 3; ++page) {
        EXPECT_EQ(sigbus_of([&] { *memory_->at(page) = 1; }), memory_->address(page));
        ASSERT_EQ(watcher.zero(memory_->address(page), 1), 0);
        EXPECT_TRUE(memory_->holds(page, 0));
    }
    EXPECT_EQ(sigbus_of([&] { EXPECT_EQ(wrong_data(), 0u); }), 0u);
}

TEST_F(Userfaults, AForkedChildHasTheMemoryAndIsNotWatched) {
    const Pages other(pages);
    Userfaultfd watcher;
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    const Filler filler(watcher, *memory_);
    EXPECT_EQ(exit_code_of_child([&] {
                  if (wrong_data() != 0) return 1;
                  if (!memory_->holds(half, 0) || !memory_->holds(pages - 1, 0)) return 2;
                  memory_->write_data(half, pages);
                  Userfaultfd own;
                  if (own.watch(memory_->address(), pages) != 0) return 3;
                  if (memory_->wrong_data(half, pages) != 0) return 4;
                  if (own.watch(other.address(), pages) != 0) return 5;
                  if (own.zero(other.address(7), 1) != 0 || !other.holds(7, 0)) return 6;
                  return 0;
              }),
              0);
    EXPECT_EQ(wrong_data(), 0u);
    EXPECT_TRUE(memory_->holds(half, filling_of(half)));
}

// Pages of zeros leave without anything being far; the child starts over then, and what its parent had
// written to is there all the same.
TEST(PagesOfZeros, AreThereInAForkedChild) {
    constexpr std::size_t count = 512;
    Pages memory(count);
    for (std::size_t page = 0; page < count; page += 2) memory.write(page, 0);
    ASSERT_TRUE(memory.goes_far());
    EXPECT_EQ(exit_code_of_child([&] {
                  Userfaultfd watcher(UFFD_FEATURE_SIGBUS);
                  if (watcher.error() != 0 || watcher.watch(memory.address(), count) != 0) return 1;
                  for (std::size_t page = 0; page < count; ++page) {
                      const std::uint64_t fault = sigbus_of([&] { memory.holds(page, 0); });
                      if (fault != (page % 2 == 0 ? 0 : memory.address(page))) return page % 2 == 0 ? 2 : 3;
                  }
                  return 0;
              }),
              0);
}

// A monitor in another process: its addresses are those of the memory it serves, and may be its own heap's.
TEST_F(Userfaults, AnothersMemoryIsServedFromHere) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    char byte = 0;
    iovec vector{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const pid_t child = fork();
    if (child == 0) {
        const Userfaultfd own;
        Userfaultfd watcher;
        if (watcher.watch(memory_->address(), pages) != 0) _exit(1);
        cmsghdr* const header = CMSG_FIRSTHDR(&message);
        *header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        const int fd = watcher.fd();
        std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
        if (sendmsg(ends[1], &message, 0) != 1) _exit(2);
        if (!memory_->holds(half + 1, 5)) _exit(3);
        _exit(wrong_data() == 0 ? 0 : 4);
    }
    ASSERT_EQ(recvmsg(ends[0], &message, MSG_CMSG_CLOEXEC), 1);
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    Pages source(1);
    source.write(0, 5);
    ASSERT_TRUE(memory_->goes_far());
    uffdio_copy copy{memory_->address(half + 1), source.address(), page_bytes, 0, 0};
    EXPECT_EQ(ioctl(fd, UFFDIO_COPY, &copy), 0) << errno;
    EXPECT_TRUE(memory_->holds(half + 1, 0));
    EXPECT_EQ(wrong_data(), 0u);
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    close(fd);
    close(ends[0]);
    close(ends[1]);
}

// Part of a block of malloc's, which is freed while it is watched no more.
TEST(UserfaultsOfBlocks, ABlockIsWatchedAndFreed) {
    Userfaultfd watcher;
    for (const std::size_t bytes : {mib / 2, 4 * mib}) {
        for (int round = 0; round < 8; ++round) {
            FarBlock block(bytes, 3);
            const std::uint64_t first =
                (reinterpret_cast<std::uint64_t>(block.data()) + page_bytes - 1) & ~(page_bytes - 1);
            const std::size_t count = bytes / page_bytes - 2;
            ASSERT_EQ(watcher.watch(first, count), 0);
            ASSERT_TRUE(block.is_intact());
            ASSERT_EQ(watcher.leave(first, count), 0);
            block.rewrite(4);
            ASSERT_TRUE(block.is_intact());
        }
    }
    FarBlock pressure(16 * mib, 5);
    EXPECT_TRUE(preload_test::becomes_mostly_far(pressure));
    EXPECT_TRUE(pressure.is_intact());
}

// Whoever is told of what happens to the memory may need memory himself before he looks.
TEST_F(Userfaults, WhoIsToldOfAnUnmappingMayMapHimself) {
    Userfaultfd watcher(UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMOVE);
    ASSERT_EQ(watcher.error(), 0);
    ASSERT_EQ(watcher.watch(memory_->address(), pages), 0);
    std::atomic<bool> ends{false};
    std::atomic<unsigned> told{0};
    std::thread monitor([&] {
        while (!ends) {
            { const Pages own(300); }
            uffd_msg message;
            pollfd waits{watcher.fd(), POLLIN, 0};
            if (poll(&waits, 1, 10) == 1 && read(watcher.fd(), &message, sizeof message) == sizeof message)
                ++told;
        }
    });
    ASSERT_EQ(madvise(reinterpret_cast<void*>(memory_->address(0)), 8 * page_bytes, MADV_DONTNEED), 0);
    ASSERT_EQ(munmap(reinterpret_cast<void*>(memory_->address(16)), 8 * page_bytes), 0);
    ASSERT_NE(mmap(reinterpret_cast<void*>(memory_->address(32)), 8 * page_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
              MAP_FAILED);
    memory_.reset();
    ends = true;
    monitor.join();
    EXPECT_GE(told, 4u);
}

// Threads that use all of it while parts are watched, left, dropped and unmapped, and everything else goes
// far beside them. Bounded by rounds.
TEST_F(Userfaults, ThreadsGoOnWhileItIsWatched) {
    constexpr int readers = 4;
    FarBlock pressure(12 * mib, 6);
    for (int round = 0; round < 10; ++round) {
        const auto memory = std::make_unique<Pages>(pages);
        memory->write_data(0, half);
        memory->goes_far();
        Userfaultfd watcher;
        ASSERT_EQ(watcher.error(), 0);
        const Filler filler(watcher, *memory);
        std::atomic<bool> ends{false};
        std::atomic<unsigned> wrong{0};
        std::atomic<unsigned> turns{0};
        std::vector<std::thread> threads;
        for (int index = 0; index < readers; ++index) {
            threads.emplace_back([&, index] {
                std::size_t page = static_cast<std::size_t>(index) * 37;
                do {
                    page = (page * 5 + 13) % pages;
                    // What was touched before it was watched reads as zeros.
                    const bool right = page < half
                                           ? memory->holds(page, data_of(page))
                                           : memory->holds(page, 0) || memory->holds(page, filling_of(page));
                    wrong += right ? 0 : 1;
                    ++turns;
                } while (!ends);
            });
        }
        threads.emplace_back([&] {
            do wrong += pressure.page_is_intact(turns % 3000) ? 0 : 1;
            while (!ends);
        });
        for (std::size_t first = 0; first < pages; first += 256) {
            EXPECT_EQ(watcher.watch(memory->address(first), 256), 0);
            const unsigned now = turns;
            while (turns < now + 200) std::this_thread::yield();
            if (first % 512 == 0) {
                EXPECT_EQ(watcher.leave(memory->address(first), 256), 0);
            }
        }
        ends = true;
        for (std::thread& thread : threads) thread.join();
        ASSERT_EQ(wrong, 0u);
        ASSERT_EQ(filler.count(0, half), 0u);
        ASSERT_EQ(filler.error(), 0);
        ASSERT_EQ(memory->wrong_data(0, half), 0u);
    }
}

}  // namespace
