// A program's own signal handlers, under the preload library, with memory that is far: what the handlers see
// and may do is what they see and may do without the library.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "far_memory.h"

namespace {

using preload_test::becomes_far;
using preload_test::becomes_mostly_far;
using preload_test::FarBlock;
using preload_test::large_bytes;
using preload_test::page_bytes;

// A page that raises `signal` when it is read: beyond a file's end, or without access.
class BadPage {
  public:
    explicit BadPage(int signal) {
        const int fd = signal == SIGBUS ? memfd_create("bad page", MFD_CLOEXEC) : -1;
        const int protection = signal == SIGBUS ? PROT_READ | PROT_WRITE : PROT_NONE;
        const int flags = signal == SIGBUS ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
        address_ = static_cast<volatile char*>(mmap(nullptr, page_bytes, protection, flags, fd, 0));
        if (fd >= 0) close(fd);
    }
    ~BadPage() { munmap(const_cast<char*>(address_), page_bytes); }
    BadPage(const BadPage&) = delete;
    BadPage& operator=(const BadPage&) = delete;

    volatile char* address() const { return address_; }
    void read() const { [[maybe_unused]] const char byte = *address_; }

  private:
    volatile char* address_;
};

// What the handlers below leave behind.
struct Seen {
    std::atomic<int> calls;
    int signal;
    void* address;
    bool bytes_right;
    bool on_alternate_stack;
    bool blocks_itself;
};
Seen seen;
sigjmp_buf way_out;
FarBlock* touched = nullptr;  // by the handlers
char* alternate_stack = nullptr;
constexpr std::size_t alternate_stack_bytes = std::size_t{128} << 10;

void note(int signal) {
    ++seen.calls;
    seen.signal = signal;
    seen.bytes_right = touched == nullptr || touched->is_intact();
    const char* here = static_cast<const char*>(__builtin_frame_address(0));
    seen.on_alternate_stack = alternate_stack != nullptr && here >= alternate_stack &&
                              here < alternate_stack + alternate_stack_bytes;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    seen.blocks_itself = sigismember(&mask, signal) == 1;
}

void jump_out(int signal) {
    note(signal);
    siglongjmp(way_out, 1);
}

void jump_out_with_address(int signal, siginfo_t* info, void*) {
    seen.address = info->si_addr;
    jump_out(signal);
}

struct Way {
    int signal;
    int flags;
    const char* name;
};
void PrintTo(const Way& way, std::ostream* out) {
    *out << way.name;
}

class Handlers : public ::testing::TestWithParam<Way> {
  protected:
    void SetUp() override {
        seen.calls = 0;
        touched = &block_;
        alternate_stack = static_cast<char*>(std::aligned_alloc(page_bytes, alternate_stack_bytes));
        stack_t stack = {alternate_stack, 0, alternate_stack_bytes};
        ASSERT_EQ(sigaltstack(&stack, &former_stack_), 0);
        ASSERT_EQ(sigaction(GetParam().signal, nullptr, &former_), 0);
    }
    void TearDown() override {
        sigaction(GetParam().signal, &former_, nullptr);
        sigaltstack(&former_stack_, nullptr);
        std::free(alternate_stack);
        alternate_stack = nullptr;
        touched = nullptr;
    }
    void install() {
        struct sigaction action = {};
        action.sa_flags = GetParam().flags;
        if ((action.sa_flags & SA_SIGINFO) != 0)
            action.sa_sigaction = jump_out_with_address;
        else
            action.sa_handler = jump_out;
        ASSERT_EQ(sigaction(GetParam().signal, &action, nullptr), 0);
    }
    bool jumps_out_of(const BadPage& page) {
        if (sigsetjmp(way_out, 1) != 0) return true;
        page.read();
        return false;
    }

    FarBlock block_{large_bytes, 1};
    stack_t former_stack_ = {};
    struct sigaction former_ = {};
};

TEST_P(Handlers, SeeTheProgramsOwnFaultsAndNoneOfTheLibrarys) {
    install();
    ASSERT_TRUE(becomes_mostly_far(block_));
    EXPECT_EQ(seen.calls, 0) << "the handler saw a fault on far memory";
    const BadPage bad(GetParam().signal);
    ASSERT_TRUE(jumps_out_of(bad));
    EXPECT_EQ(seen.calls, 1);
    EXPECT_EQ(seen.signal, GetParam().signal);
    EXPECT_TRUE(seen.bytes_right);
    EXPECT_EQ(seen.on_alternate_stack, (GetParam().flags & SA_ONSTACK) != 0);
    EXPECT_EQ(seen.blocks_itself, (GetParam().flags & SA_NODEFER) == 0);
    if ((GetParam().flags & SA_SIGINFO) != 0) {
        EXPECT_EQ(seen.address, bad.address());
    }
    EXPECT_TRUE(block_.is_intact());
    EXPECT_EQ(seen.calls, 1);
}

TEST_P(Handlers, AreInPlaceForEachFaultUnlessTheyAreReset) {
    install();
    const BadPage bad(GetParam().signal);
    ASSERT_TRUE(jumps_out_of(bad));
    const bool resets = (GetParam().flags & static_cast<int>(SA_RESETHAND)) != 0;
    struct sigaction now = {};
    ASSERT_EQ(sigaction(GetParam().signal, nullptr, &now), 0);
    EXPECT_EQ(now.sa_handler == SIG_DFL, resets);
    ASSERT_TRUE(becomes_mostly_far(block_));
    const pid_t child = fork();
    if (child == 0) _exit(jumps_out_of(bad) && block_.is_intact() ? 7 : 8);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    if (resets) {
        EXPECT_TRUE(WIFSIGNALED(status));
        EXPECT_EQ(WTERMSIG(status), GetParam().signal);
    } else {
        EXPECT_TRUE(WIFEXITED(status));
        EXPECT_EQ(WEXITSTATUS(status), 7);
    }
    EXPECT_TRUE(block_.is_intact());
}

// The kernel writes the handler's frame to a stack that is far.
TEST_P(Handlers, RunOnAnAlternateStackThatIsFar) {
    install();
    const BadPage bad(GetParam().signal);
    for (int round = 0; round < 3; ++round) {
        struct sigaction again = {};
        sigaction(GetParam().signal, nullptr, &again);
        if (again.sa_handler == SIG_DFL) install();
        ASSERT_TRUE(becomes_far(alternate_stack, alternate_stack_bytes, 0, block_));
        ASSERT_TRUE(jumps_out_of(bad));
        EXPECT_TRUE(seen.bytes_right);
    }
    EXPECT_EQ(seen.calls, 3);
}

INSTANTIATE_TEST_SUITE_P(Signals, Handlers,
                         ::testing::Values(Way{SIGBUS, 0, "BusPlain"}, Way{SIGBUS, SA_SIGINFO, "BusInfo"},
                                           Way{SIGBUS, SA_SIGINFO | SA_ONSTACK, "BusOnStack"},
                                           Way{SIGBUS, static_cast<int>(SA_RESETHAND), "BusReset"},
                                           Way{SIGBUS, SA_NODEFER | SA_SIGINFO, "BusNoDefer"},
                                           Way{SIGSEGV, 0, "SegvPlain"}, Way{SIGSEGV, SA_SIGINFO, "SegvInfo"},
                                           Way{SIGSEGV, SA_SIGINFO | SA_ONSTACK, "SegvOnStack"},
                                           Way{SIGSEGV, static_cast<int>(SA_RESETHAND), "SegvReset"},
                                           Way{SIGSEGV, SA_NODEFER | SA_SIGINFO, "SegvNoDefer"}),
                         [](const ::testing::TestParamInfo<Way>& way) { return way.param.name; });

TEST(Signals, SignalReturnsTheHandlerBefore) {
    FarBlock block(large_bytes, 2);
    const auto expect_jump = [](int number) {
        const BadPage bad(number);
        seen.calls = 0;
        if (sigsetjmp(way_out, 1) == 0) bad.read();
        EXPECT_EQ(seen.calls, 1);
    };
    for (const int number : {SIGBUS, SIGSEGV}) {
        const auto former = signal(number, jump_out);
        EXPECT_EQ(signal(number, SIG_IGN), jump_out);
        EXPECT_EQ(signal(number, SIG_DFL), SIG_IGN);
        EXPECT_EQ(signal(number, jump_out), SIG_DFL);
        ASSERT_TRUE(becomes_mostly_far(block));
        expect_jump(number);
        EXPECT_EQ(signal(number, former), jump_out);
    }
}

// raise() and kill() of SIGBUS are the program's, whatever else that signal is used for.
TEST(Signals, SentOnesReachTheHandler) {
    FarBlock block(large_bytes, 3);
    touched = &block;
    for (const int number : {SIGBUS, SIGSEGV}) {
        const auto former = signal(number, note);
        seen.calls = 0;
        ASSERT_TRUE(becomes_mostly_far(block));
        ASSERT_EQ(raise(number), 0);
        ASSERT_EQ(kill(getpid(), number), 0);
        EXPECT_EQ(seen.calls, 2);
        EXPECT_TRUE(seen.bytes_right);
        signal(number, former);
    }
    touched = nullptr;
}

TEST(Signals, DefaultActionsAreTheKernels) {
    FarBlock block(large_bytes, 4);
    ASSERT_TRUE(becomes_mostly_far(block));
    for (const int number : {SIGBUS, SIGSEGV}) {
        const pid_t child = fork();
        if (child == 0) {
            signal(number, SIG_DFL);
            const BadPage bad(number);
            if (!block.is_intact()) _exit(1);
            bad.read();
            _exit(2);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
        EXPECT_EQ(WTERMSIG(status), number);
    }
}

TEST(Signals, AThreadThatBlocksEverySignalFaultsAsAnyOther) {
    FarBlock block(large_bytes, 5);
    ASSERT_TRUE(becomes_mostly_far(block));
    std::thread([&] {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, nullptr);
        EXPECT_TRUE(becomes_mostly_far(block));
        EXPECT_TRUE(block.is_intact());
        sigset_t mask;
        pthread_sigmask(SIG_SETMASK, nullptr, &mask);
        EXPECT_EQ(sigismember(&mask, SIGBUS), 1);
        EXPECT_EQ(sigismember(&mask, SIGSEGV), 1);
    }).join();
    EXPECT_TRUE(block.is_intact());
}

// A timer's signal comes while a fault is served; its handler faults itself, and goes back or not.
class Storm {
  public:
    explicit Storm(void (*handler)(int)) {
        seen.calls = 0;
        struct sigaction action = {};
        action.sa_handler = handler;
        action.sa_flags = SA_RESTART;
        sigaction(SIGALRM, &action, &former_);
        every(300);
    }
    ~Storm() {
        every(0);
        sigaction(SIGALRM, &former_, nullptr);
    }
    Storm(const Storm&) = delete;
    Storm& operator=(const Storm&) = delete;

  private:
    static void every(int microseconds) {
        const itimerval interval = {{0, microseconds}, {0, microseconds}};
        setitimer(ITIMER_REAL, &interval, nullptr);
    }
    struct sigaction former_ = {};
};

constexpr int storm_signals = 300;
FarBlock* sampled = nullptr;
std::atomic<std::size_t> sample{0};
std::atomic<int> samples_wrong{0};

// One page of the block, another each time.
void sample_far_memory(int) {
    ++seen.calls;
    const std::size_t pages = sampled->bytes() / page_bytes;
    const std::size_t page = (sample += 7919) % pages;
    if (!sampled->page_is_intact(page)) ++samples_wrong;
}

void sample_and_jump(int number) {
    sample_far_memory(number);
    siglongjmp(way_out, 1);
}

TEST(Signals, AHandlerMayInterruptAFaultAndFault) {
    FarBlock read(large_bytes, 6);
    FarBlock other(large_bytes, 7);
    sampled = &other;
    samples_wrong = 0;
    {
        const Storm storm(sample_far_memory);
        while (seen.calls < storm_signals) ASSERT_TRUE(read.is_intact());
    }
    sampled = nullptr;
    EXPECT_EQ(samples_wrong, 0);
}

TEST(Signals, AHandlerMayJumpOutOfAFault) {
    FarBlock read(large_bytes, 8);
    FarBlock other(large_bytes, 9);
    sampled = &other;
    samples_wrong = 0;
    static volatile bool wrong;
    wrong = false;
    {
        // Blocked until there is a way out: the first signal may come at once.
        sigset_t alarm_alone;
        sigemptyset(&alarm_alone);
        sigaddset(&alarm_alone, SIGALRM);
        sigprocmask(SIG_BLOCK, &alarm_alone, nullptr);
        const Storm storm(sample_and_jump);
        sigsetjmp(way_out, 1);
        // Here again after each signal, with the mask of the first time.
        if (seen.calls < storm_signals) {
            sigprocmask(SIG_UNBLOCK, &alarm_alone, nullptr);
            while (!wrong) wrong = !read.is_intact();
        }
        EXPECT_FALSE(wrong);
    }
    // One that came after the last jump is still pending, and there is no handler any more.
    signal(SIGALRM, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(SIGALRM, SIG_DFL);
    sampled = nullptr;
    EXPECT_EQ(samples_wrong, 0);
    EXPECT_TRUE(read.is_intact());
    EXPECT_TRUE(other.is_intact());
}

// The set that is waited for and the answer are far when the call begins, and other memory is used while it
// waits: whether their page stays meanwhile (a shield holds it) or leaves (handler threads bring it back),
// the kernel reads and writes what is there.
TEST(Signals, SigwaitLoopsWithFarArguments) {
    struct Arguments {
        sigset_t set;
        siginfo_t info;
    };
    auto* far = static_cast<Arguments*>(std::aligned_alloc(page_bytes, page_bytes));
    sigemptyset(&far->set);
    sigaddset(&far->set, SIGUSR1);
    sigaddset(&far->set, SIGUSR2);
    sigset_t before;
    ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &far->set, &before), 0);
    FarBlock block(large_bytes, 10);
    std::atomic<int> asked{0};
    std::atomic<int> answered{0};
    std::thread waiter([&] {
        for (int round = 1; round <= 8; ++round) {
            while (asked < round) std::this_thread::yield();
            while (sigwaitinfo(&far->set, &far->info) < 0) {
            }
            EXPECT_EQ(far->info.si_signo, round == 8 ? SIGUSR2 : SIGUSR1);
            EXPECT_EQ(far->info.si_value.sival_int, round);
            answered = round;
        }
    });
    const pthread_t handle = waiter.native_handle();
    for (int round = 1; round <= 8; ++round) {
        ASSERT_TRUE(becomes_far(far, page_bytes, 0, block));
        asked = round;
        ASSERT_TRUE(block.is_intact());
        ASSERT_EQ(pthread_sigqueue(handle, round == 8 ? SIGUSR2 : SIGUSR1, sigval{round}), 0);
        while (answered < round) std::this_thread::yield();
    }
    waiter.join();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    EXPECT_TRUE(block.is_intact());
    std::free(far);
}

// Signals come at every moment of a system call that is nobody's function: what it did is told, and done
// once.
TEST(Signals, NoCallsResultIsLost) {
    FarBlock other(large_bytes, 12);
    sampled = &other;
    samples_wrong = 0;
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    constexpr std::uint32_t numbers = 40000;
    std::thread writer([&] {
        sigset_t alarm_alone;
        sigemptyset(&alarm_alone);
        sigaddset(&alarm_alone, SIGALRM);
        pthread_sigmask(SIG_BLOCK, &alarm_alone, nullptr);
        for (std::uint32_t number = 0; number < numbers; ++number) {
            if (write(ends[1], &number, sizeof number) != sizeof number) std::abort();
        }
    });
    const int file = static_cast<int>(syscall(SYS_memfd_create, "calls", 0));
    std::uint32_t wrong = 0;
    {
        const Storm storm(sample_far_memory);
        for (std::uint32_t number = 0; number < numbers; ++number) {
            std::uint32_t read_number = ~0U;
            wrong += syscall(SYS_read, ends[0], &read_number, sizeof read_number) != sizeof read_number;
            wrong += read_number != number;
            if (number % 4 == 0)  // a file's offset moves once a call
                wrong += syscall(SYS_write, file, &number, sizeof number) != sizeof number;
        }
        while (seen.calls < storm_signals) wrong += syscall(SYS_getppid) != getppid();
    }
    writer.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_EQ(lseek(file, 0, SEEK_END), static_cast<off_t>(numbers));
    // Without SA_RESTART a call that sleeps ends, having done nothing.
    struct sigaction action = {};
    action.sa_handler = sample_far_memory;
    struct sigaction former;
    sigaction(SIGALRM, &action, &former);
    const itimerval often = {{0, 20000}, {0, 20000}};  // the first may come before it sleeps
    const itimerval never = {};
    setitimer(ITIMER_REAL, &often, nullptr);
    char byte = 0;
    errno = 0;
    EXPECT_EQ(syscall(SYS_read, ends[0], &byte, 1), -1);
    EXPECT_EQ(errno, EINTR);
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &former, nullptr);
    sampled = nullptr;
    EXPECT_EQ(samples_wrong, 0);
    for (const int fd : {file, ends[0], ends[1]}) close(fd);
}

// ---- the two that are the library's own, sent by somebody ----

// Where the handler ran, and what it was told.
struct Sent {
    std::atomic<std::uint32_t> calls;
    std::atomic<std::uint32_t> on_another_stack;
    std::atomic<std::uint32_t> wrong_values;
    const char* stack_low;
    const char* stack_high;
    int wakes;  // it writes a byte there, unless it is negative
};
Sent sent;

void note_sent(int, siginfo_t* info, void*) {
    const char* here = static_cast<const char*>(__builtin_frame_address(0));
    if (here < sent.stack_low || here >= sent.stack_high) ++sent.on_another_stack;
    if (info->si_code != SI_QUEUE || info->si_value.sival_int != 4711) ++sent.wrong_values;
    if (sent.wakes >= 0 && syscall(SYS_write, sent.wakes, "", 1) != 1) std::abort();
    ++sent.calls;
}

void note_stack_of_this_thread() {
    pthread_attr_t attributes;
    void* low = nullptr;
    std::size_t bytes = 0;
    ASSERT_EQ(pthread_getattr_np(pthread_self(), &attributes), 0);
    ASSERT_EQ(pthread_attr_getstack(&attributes, &low, &bytes), 0);
    pthread_attr_destroy(&attributes);
    sent.stack_low = static_cast<const char*>(low);
    sent.stack_high = sent.stack_low + bytes;
}

bool send_to(int signal, pthread_t thread) {
    return pthread_sigqueue(thread, signal, sigval{.sival_int = 4711}) == 0;
}

// The kernel keeps no second one of a number while one is pending, and each fault is a SIGBUS for a
// moment, each dispatched call a SIGSYS: so one that is sent may be none, and is sent again.
bool send_until(int signal, pthread_t thread, const auto& handled) {
    constexpr int patience = 100;
    for (int waited = 0; !handled(); ++waited) {
        if (waited % patience == 0 && !send_to(signal, thread)) return false;
        std::this_thread::yield();
    }
    return true;
}

class SentSignals : public ::testing::TestWithParam<int> {
  protected:
    void SetUp() override {
        sent.calls = 0;
        sent.on_another_stack = 0;
        sent.wrong_values = 0;
        sent.wakes = -1;
        struct sigaction action = {};
        action.sa_sigaction = note_sent;
        action.sa_flags = SA_SIGINFO | SA_RESTART;
        ASSERT_EQ(sigaction(GetParam(), &action, &former_), 0);
    }
    void TearDown() override { sigaction(GetParam(), &former_, nullptr); }
    struct sigaction former_ = {};
};

// A thread that makes calls and reads far memory is sent signals, while others read far memory too.
void send_to_a_reader(int signal, unsigned others_count, std::uint32_t calls_min) {
    FarBlock block(large_bytes, 31);
    const std::size_t pages = block.bytes() / page_bytes;
    std::atomic<bool> ready{false};
    std::atomic<std::uint32_t> wrong{0};
    const auto read_on = [&](std::size_t page) {
        page = (page + 7919) % pages;
        wrong += block.page_is_intact(page) ? 0 : 1;
        return page;
    };
    std::vector<std::thread> others;
    for (unsigned number = 0; number < others_count; ++number) {
        others.emplace_back([&, number] {
            for (std::size_t page = 101 * number; sent.calls < calls_min;) page = read_on(page);
        });
    }
    std::thread target([&] {
        note_stack_of_this_thread();
        ready = true;
        char numbers[64];
        iovec parts[4] = {{numbers, 16}, {numbers + 16, 16}, {numbers + 32, 16}, {numbers + 48, 16}};
        const int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        for (std::size_t page = 0; sent.calls < calls_min; page = read_on(page))
            wrong += syscall(SYS_readv, zero, parts, 4) != sizeof numbers;
        close(zero);
    });
    while (!ready) std::this_thread::yield();
    const pthread_t handle = target.native_handle();
    while (sent.calls < calls_min) {
        const std::uint32_t before = sent.calls;
        ASSERT_TRUE(send_until(signal, handle, [&] { return sent.calls != before; }));
    }
    target.join();
    for (std::thread& other : others) other.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_EQ(sent.on_another_stack, 0U);
    EXPECT_EQ(sent.wrong_values, 0U);
}

// However far the library has come with a call or a fault, the handler runs where the program's stack is.
TEST_P(SentSignals, HaveTheirHandlerOnTheProgramsStack) {
    send_to_a_reader(GetParam(), 0, 500);
}

// The library waits for its own locks then, by calls that may come from libc's text.
TEST_P(SentSignals, HaveTheirHandlerOnTheProgramsStackWhileOthersFault) {
    send_to_a_reader(GetParam(), 6, 200);
}

// One that comes while the library prepares a call that is going to sleep is handled before it sleeps: only
// the handler wakes it.
TEST_P(SentSignals, AreHandledBeforeACallSleeps) {
    constexpr std::uint32_t rounds = 5000;
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    sent.wakes = ends[1];
    std::atomic<std::uint32_t> about_to_sleep{0};
    std::uint32_t wrong = 0;
    std::thread target([&] {
        note_stack_of_this_thread();
        for (std::uint32_t round = 1; round <= rounds; ++round) {
            about_to_sleep = round;
            char byte = 0;
            wrong += syscall(SYS_read, ends[0], &byte, 1) != 1;
        }
    });
    const pthread_t handle = target.native_handle();
    for (std::uint32_t round = 1; round <= rounds; ++round) {
        while (about_to_sleep < round) std::this_thread::yield();  // it is ahead by what was sent twice
        for (std::uint32_t spin = 0; spin < round % 1500; ++spin) about_to_sleep.load();
        ASSERT_TRUE(send_until(GetParam(), handle, [&] { return sent.calls >= round; }));
    }
    target.join();
    EXPECT_EQ(wrong, 0U);
    EXPECT_GE(sent.calls, rounds);
    EXPECT_EQ(sent.on_another_stack, 0U);
    for (const int end : ends) close(end);
}

// Until it is another program a child of vfork() shares all memory with its parent, the library's too.
TEST_P(SentSignals, OfAChildOfVforkAreNotItsParents) {
    sigset_t alone;
    sigset_t before;
    sigemptyset(&alone);
    sigaddset(&alone, GetParam());
    note_stack_of_this_thread();
    ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &alone, &before), 0);
    const pid_t child = vfork();
    if (child == 0) {
        const pid_t grandchild = vfork();
        if (grandchild == 0) {
            sigprocmask(SIG_BLOCK, &alone, nullptr);
            _exit(0);
        }
        sigprocmask(SIG_UNBLOCK, &alone, nullptr);
        _exit(grandchild > 0 ? 0 : 1);
    }
    int status = -1;
    ASSERT_TRUE(send_to(GetParam(), pthread_self()));
    EXPECT_EQ(sent.calls, 0U);
    sigset_t mask;
    ASSERT_EQ(pthread_sigmask(SIG_SETMASK, nullptr, &mask), 0);
    EXPECT_EQ(sigismember(&mask, GetParam()), 1);
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    ASSERT_EQ(pthread_sigmask(SIG_SETMASK, &before, nullptr), 0);
    EXPECT_EQ(sent.calls, 1U);
}

INSTANTIATE_TEST_SUITE_P(Signals, SentSignals, ::testing::Values(SIGBUS, SIGSYS),
                         [](const auto& tested) { return tested.param == SIGBUS ? "Bus" : "Sys"; });

// ---- where handlers run, and what the program is told ----

// A signal comes while a coroutine runs on a stack from malloc, and the page below its frame is far: the
// frame of the handler goes there.
struct Coroutine {
    static constexpr std::size_t stack_bytes = 64 * page_bytes;
    static constexpr std::size_t depth_bytes = 16 * page_bytes;  // how far down it waits
    char* stack;
    char* low;  // the page it waits in
    ucontext_t caller;
    ucontext_t itself;
    bool done;
};
Coroutine* coroutine = nullptr;
std::atomic<int> signals_on_it{0};
std::atomic<bool> spinning{false};

void note_on_coroutine(int) {
    char below[3 * page_bytes];  // and deeper
    for (volatile char& byte : below) byte = 1;
    const char* here = static_cast<const char*>(__builtin_frame_address(0));
    if (here > coroutine->stack && here < coroutine->stack + Coroutine::stack_bytes) ++signals_on_it;
}

[[gnu::noinline]] void wait_for_signals(int count) {
    for (int round = 0; round < count; ++round) {
        swapcontext(&coroutine->itself, &coroutine->caller);
        const int before = signals_on_it;
        spinning = true;
        while (signals_on_it == before) {
        }
        spinning = false;
    }
}

void run_coroutine() {
    // To just above a page's start, so that no frame fits there.
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const std::uintptr_t wanted = ((here - Coroutine::depth_bytes) & ~std::uintptr_t{page_bytes - 1}) + 1024;
    auto* const room = static_cast<volatile char*>(__builtin_alloca(here - wanted));
    room[0] = 1;
    coroutine->low = reinterpret_cast<char*>(wanted & ~std::uintptr_t{page_bytes - 1});
    wait_for_signals(20);
    coroutine->done = true;
    swapcontext(&coroutine->itself, &coroutine->caller);
}

TEST(Signals, FramesGoToACoroutinesFarStack) {
    FarBlock block(large_bytes, 11);
    Coroutine own{};
    coroutine = &own;
    own.stack = static_cast<char*>(std::aligned_alloc(page_bytes, Coroutine::stack_bytes));
    getcontext(&own.itself);
    own.itself.uc_stack.ss_sp = own.stack;
    own.itself.uc_stack.ss_size = Coroutine::stack_bytes;
    makecontext(&own.itself, run_coroutine, 0);
    signals_on_it = 0;
    struct sigaction action = {};
    action.sa_handler = note_on_coroutine;
    struct sigaction former;
    ASSERT_EQ(sigaction(SIGUSR1, &action, &former), 0);
    const pthread_t target = pthread_self();
    std::atomic<bool> stop{false};
    std::thread sender([&] {
        while (!stop) {
            if (spinning.exchange(false)) pthread_kill(target, SIGUSR1);
            std::this_thread::yield();
        }
    });
    swapcontext(&own.caller, &own.itself);
    while (!own.done) {
        // What the coroutine has never used is not there, and what it has used leaves.
        EXPECT_TRUE(becomes_far(own.stack, static_cast<std::size_t>(own.low - own.stack), 0, block));
        swapcontext(&own.caller, &own.itself);
    }
    stop = true;
    sender.join();
    EXPECT_GE(signals_on_it, 20);
    sigaction(SIGUSR1, &former, nullptr);
    std::free(own.stack);
    coroutine = nullptr;
    EXPECT_TRUE(block.is_intact());
}

TEST(Signals, ActionsReadBackAsTheyWereSet) {
    for (const int number : {SIGUSR1, SIGBUS, SIGSEGV, SIGSYS}) {
        struct sigaction former;
        struct sigaction action = {};
        action.sa_sigaction = jump_out_with_address;
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
        sigemptyset(&action.sa_mask);
        sigaddset(&action.sa_mask, SIGBUS);
        sigaddset(&action.sa_mask, SIGHUP);
        ASSERT_EQ(sigaction(number, &action, &former), 0);
        struct sigaction read = {};
        ASSERT_EQ(sigaction(number, nullptr, &read), 0);
        EXPECT_EQ(read.sa_sigaction, action.sa_sigaction);
        EXPECT_EQ(read.sa_flags & ~0x04000000, action.sa_flags);  // SA_RESTORER is libc's
        EXPECT_EQ(std::memcmp(&read.sa_mask, &action.sa_mask, 8), 0);
        // What a child of vfork() does about handlers is its own.
        EXPECT_EQ(std::system("exit 3"), 3 << 8);
        ASSERT_EQ(sigaction(number, nullptr, &read), 0);
        EXPECT_EQ(read.sa_sigaction, action.sa_sigaction) << "a spawned process took it away";
        ASSERT_EQ(sigaction(number, &former, &read), 0);
        EXPECT_EQ(read.sa_sigaction, action.sa_sigaction);
    }
}

stack_t stack_in_handler;
int change_in_handler;
void look_at_stack(int, siginfo_t*, void* context) {
    const stack_t none = {nullptr, SS_DISABLE, 0};
    change_in_handler = sigaltstack(&none, nullptr) == 0 ? 0 : errno;
    sigaltstack(nullptr, &stack_in_handler);
    seen.address = static_cast<ucontext_t*>(context)->uc_stack.ss_sp;
}

TEST(Signals, TheAlternateStackIsTheProgramsOwn) {
    constexpr std::size_t small_bytes = 16384;
    char* const small = static_cast<char*>(std::aligned_alloc(page_bytes, small_bytes));
    stack_t former;
    const stack_t stack = {small, 0, small_bytes};
    ASSERT_EQ(sigaltstack(&stack, &former), 0);
    struct sigaction action = {};
    action.sa_sigaction = look_at_stack;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    struct sigaction before;
    ASSERT_EQ(sigaction(SIGSEGV, &action, &before), 0);
    const pid_t child = fork();
    if (child == 0) {  // a fault, so that no system call is under way; the handler ends it by mending nothing
        action.sa_sigaction = [](int number, siginfo_t* info, void* context) {
            look_at_stack(number, info, context);
            const char* here = static_cast<const char*>(__builtin_frame_address(0));
            const char* low = static_cast<const char*>(stack_in_handler.ss_sp);
            const bool right = here > low && here < low + small_bytes && change_in_handler == EPERM &&
                               stack_in_handler.ss_flags == SS_ONSTACK &&
                               stack_in_handler.ss_size == small_bytes && seen.address == low;
            _exit(right ? 9 : 10);
        };
        sigaction(SIGSEGV, &action, nullptr);
        const BadPage bad(SIGSEGV);
        bad.read();
        _exit(11);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 9);
    stack_t now;
    ASSERT_EQ(sigaltstack(&former, &now), 0);
    EXPECT_EQ(now.ss_sp, small);
    EXPECT_EQ(now.ss_size, small_bytes);
    EXPECT_EQ(now.ss_flags, 0);
    sigaction(SIGSEGV, &before, nullptr);
    std::free(small);
}

// What a handler changes of the context it interrupted holds when it returns, registers of floats too.
TEST(Signals, AHandlerChangesWhatItInterrupted) {
    static volatile char* mended;
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t*, void* context) {
        double scratch[64];
        for (double& value : scratch) value = 3.5 * static_cast<double>(seen.calls + 1);
        seen.bytes_right = scratch[63] != 0;
        ++seen.calls;
        auto* const interrupted = static_cast<ucontext_t*>(context);
        interrupted->uc_mcontext.gregs[REG_RAX] = reinterpret_cast<greg_t>(mended);
    };
    struct sigaction former;
    seen.calls = 0;
    ASSERT_EQ(sigaction(SIGSEGV, &action, &former), 0);
    static char good = 42;
    mended = &good;
    const BadPage bad(SIGSEGV);
    double kept = 1.25;
    int value = 0;
    asm volatile("movsbl (%%rax), %1" : "+x"(kept), "=r"(value) : "a"(bad.address()) : "memory");
    EXPECT_EQ(value, 42);
    EXPECT_EQ(kept, 1.25);
    EXPECT_EQ(seen.calls, 1);
    sigaction(SIGSEGV, &former, nullptr);
}

// ---- an alternate stack that is still set, and memory of somebody else's by now ----

// In a child, whose stack it is: it may end by a signal.
int status_of(bool (*body)()) {
    const pid_t child = fork();
    if (child == 0) _exit(body() ? 0 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

bool faults_and_calls_work(FarBlock& block) {
    return becomes_mostly_far(block) && block.is_intact() && syscall(SYS_getppid) == getppid();
}

void* set_stack(void* address) {
    const stack_t stack = {address, 0, alternate_stack_bytes};
    return sigaltstack(&stack, nullptr) == 0 ? address : nullptr;
}

void* map_stack() {
    return mmap(nullptr, alternate_stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

TEST(Signals, AnAlternateStackMayBeUnmappedWhileItIsSet) {
    const int by_libc = status_of([] {
        FarBlock block(large_bytes, 21);
        void* const stack = set_stack(map_stack());
        return faults_and_calls_work(block) && munmap(stack, alternate_stack_bytes) == 0 &&
               faults_and_calls_work(block);
    });
    EXPECT_EQ(by_libc, 0) << "signal " << WTERMSIG(by_libc);
    const int by_a_bare_call = status_of([] {
        FarBlock block(large_bytes, 22);
        void* const stack = set_stack(map_stack());
        return faults_and_calls_work(block) && syscall(SYS_munmap, stack, alternate_stack_bytes) == 0 &&
               faults_and_calls_work(block);
    });
    EXPECT_EQ(by_a_bare_call, 0) << "signal " << WTERMSIG(by_a_bare_call);
}

// Freed and allocated again, it would have the same bytes in it: nobody but a handler of the program's writes
// there.
TEST(Signals, AnAlternateStackIsNotWrittenToWithoutAHandler) {
    const int status = status_of([] {
        FarBlock block(large_bytes, 23);
        auto* const stack =
            static_cast<unsigned char*>(set_stack(std::aligned_alloc(page_bytes, alternate_stack_bytes)));
        std::memset(stack, 0x5a, alternate_stack_bytes);
        if (!faults_and_calls_work(block)) return false;
        return std::all_of(stack, stack + alternate_stack_bytes,
                           [](unsigned char byte) { return byte == 0x5a; });
    });
    EXPECT_EQ(status, 0);
}

}  // namespace
