// Processes that clone3(2) makes with CLONE_CLEAR_SIGHAND: none of the program's handlers is theirs, what it
// ignores they ignore, and the parent keeps all. The same tests run without the library, with no memory that
// is far: what they expect is the kernel's own answer.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "far_memory.h"

namespace {

using preload_test::becomes_far;
using preload_test::becomes_mostly_far;
using preload_test::FarBlock;
using preload_test::large_bytes;
using preload_test::page_bytes;

constexpr std::uint64_t clear_handlers = 0x100000000;  // CLONE_CLEAR_SIGHAND
constexpr std::uint64_t shares_memory = CLONE_VM | CLONE_VFORK;

bool has_library() {
    return std::getenv("LD_PRELOAD") != nullptr;
}

// ---- what the kernel says of a signal ----

struct Action {
    std::uintptr_t handler, flags, restorer;
    std::uint64_t mask;
    bool operator==(const Action&) const = default;
};

constexpr int signals_end = 65;
using Actions = std::array<Action, signals_end>;

Action action_of(int signal) {
    Action action{};
    syscall(SYS_rt_sigaction, signal, nullptr, &action, sizeof action.mask);
    return action;
}

Actions all_actions() {
    Actions actions{};
    for (int signal = 1; signal < signals_end; ++signal)
        actions[static_cast<std::size_t>(signal)] = action_of(signal);
    return actions;
}

Action cleared(const Action& action) {
    const bool ignored = action.handler == reinterpret_cast<std::uintptr_t>(SIG_IGN);
    return {ignored ? action.handler : 0, 0, 0, 0};
}

// ---- a child, made by the call itself ----

using Body = int (*)(void* argument);

// It runs `body`, on `stack` where it is given one, and ends with its answer. Its number, or minus an errno.
// `registers_kept`: what the kernel leaves alone was left alone.
long clone3_and_run(clone_args& arguments, Body body, void* argument, bool* registers_kept) {
    register std::uint64_t r8 asm("r8") = 0x8888;
    register std::uint64_t r10 asm("r10") = reinterpret_cast<std::uint64_t>(argument);
    register std::uint64_t r12 asm("r12") = reinterpret_cast<std::uint64_t>(body);
    std::uint64_t rbx = 0xbbbb;
    long result = SYS_clone3;
    std::uint64_t rdi = reinterpret_cast<std::uint64_t>(&arguments);
    std::uint64_t rsi = sizeof arguments;
    std::uint64_t rdx = 0xdddd;
    asm volatile(
        "syscall\n\t"
        "test %%rax, %%rax\n\t"
        "jnz 1f\n\t"
        "xor %%ebp, %%ebp\n\t"
        "lea -256(%%rsp), %%rsp\n\t"
        "and $-16, %%rsp\n\t"
        "mov %%r10, %%rdi\n\t"
        "call *%%r12\n\t"
        "mov %%eax, %%edi\n\t"
        "mov $231, %%eax\n\t"  // exit_group
        "syscall\n"
        "1:"
        : "+a"(result), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+b"(rbx), "+r"(r8), "+r"(r10), "+r"(r12)
        :
        : "rcx", "r11", "memory", "cc");
    *registers_kept = rdi == reinterpret_cast<std::uint64_t>(&arguments) && rsi == sizeof arguments &&
                      rdx == 0xdddd && rbx == 0xbbbb && r8 == 0x8888 &&
                      r10 == reinterpret_cast<std::uint64_t>(argument) &&
                      r12 == reinterpret_cast<std::uint64_t>(body);
    return result;
}

// As waitpid() gives it; SIGCHLD may be ignored, so the child says nothing when it ends.
int status_of(long child) {
    int status = -1;
    while (waitpid(static_cast<pid_t>(child), &status, __WALL) < 0) {
        if (errno != EINTR) return -1;
    }
    return status;
}

// Beyond the end of its file.
char* bad_page() {
    const int file = memfd_create("bad page", MFD_CLOEXEC);
    void* const page = mmap(nullptr, page_bytes, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    return static_cast<char*>(page);
}

// ---- the program's handlers ----

volatile int calls = 0;
sigjmp_buf way_out;

void count(int) {
    calls = calls + 1;
}
void jump_out(int) {
    siglongjmp(way_out, 1);
}

void handle(int signal, void (*handler)(int), int flags) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaddset(&action.sa_mask, SIGHUP);
    sigaction(signal, &action, nullptr);
}

bool jumps_out_of(const volatile char* address) {
    if (sigsetjmp(way_out, 1) != 0) return true;
    [[maybe_unused]] const char byte = *address;
    return false;
}

class ClearedHandlers : public ::testing::TestWithParam<std::uint64_t> {
  protected:
    void SetUp() override {
        touched = &block_;
        before_ = all_actions();
        handle(SIGUSR1, count, SA_RESTART);
        handle(SIGBUS, jump_out, SA_NODEFER);
        handle(SIGSEGV, jump_out, SA_ONSTACK);
        handle(SIGSYS, count, 0);
        handle(SIGCHLD, SIG_IGN, SA_NOCLDSTOP);
        if (has_library()) {
            ASSERT_TRUE(becomes_mostly_far(block_));
        }
    }
    void TearDown() override {
        for (const int signal : {SIGUSR1, SIGBUS, SIGSEGV, SIGSYS, SIGCHLD})
            syscall(SYS_rt_sigaction, signal, &before_[static_cast<std::size_t>(signal)], nullptr, 8);
        std::free(stack_);
        touched = nullptr;
    }

    static bool shares() { return (GetParam() & CLONE_VM) != 0; }

    // A child that shares memory has a stack of malloc's, which is far.
    long start(Body body, void* argument = nullptr, std::uint64_t flags = clear_handlers) {
        clone_args arguments{};
        arguments.flags = GetParam() | flags;
        if (shares()) {
            if (has_library()) {
                EXPECT_TRUE(becomes_far(stack_, stack_bytes, 0, block_));
            }
            arguments.stack = reinterpret_cast<std::uint64_t>(stack_);
            arguments.stack_size = stack_bytes;
        }
        bool registers_kept = false;
        const long child = clone3_and_run(arguments, body, argument, &registers_kept);
        EXPECT_TRUE(registers_kept);
        return child;
    }
    int status_of_child(Body body, void* argument = nullptr) {
        const long child = start(body, argument);
        EXPECT_GT(child, 0) << std::strerror(static_cast<int>(-child));
        return child > 0 ? status_of(child) : -1;
    }
    void expect_parent_is_as_before(const Actions& then) {
        EXPECT_EQ(all_actions(), then);
        calls = 0;
        EXPECT_EQ(raise(SIGUSR1), 0);
        EXPECT_EQ(raise(SIGSYS), 0);
        EXPECT_EQ(calls, 2);
        char* const beyond = bad_page();
        EXPECT_TRUE(jumps_out_of(beyond));
        munmap(beyond, page_bytes);
        EXPECT_TRUE(jumps_out_of(nullptr));
        EXPECT_TRUE(block_.is_intact());
    }

    static FarBlock* touched;

  private:
    static constexpr std::size_t stack_bytes = 64 * page_bytes;
    FarBlock block_{large_bytes, 1};
    char* const stack_ = static_cast<char*>(std::aligned_alloc(page_bytes, stack_bytes));
    Actions before_{};
};
FarBlock* ClearedHandlers::touched = nullptr;

// The first signal about which the kernel does not say what it is expected to say; 0: none.
int first_other_than(const Actions& expected) {
    for (int signal = 1; signal < signals_end; ++signal) {
        if (action_of(signal) != expected[static_cast<std::size_t>(signal)]) return signal;
    }
    return 0;
}

TEST_P(ClearedHandlers, AreDefaultForEachSignalThatIsNotIgnored) {
    const Actions then = all_actions();
    Actions expected = then;
    for (Action& action : expected) action = cleared(action);
    const auto compare = [](void* actions) { return first_other_than(*static_cast<Actions*>(actions)); };
    EXPECT_EQ(status_of_child(compare, &expected), 0);
    expect_parent_is_as_before(then);
}

TEST_P(ClearedHandlers, StayIgnored) {
    for (const int signal : {SIGUSR1, SIGBUS, SIGSYS}) handle(signal, SIG_IGN, SA_RESTART);
    const Actions then = all_actions();
    Actions expected = then;
    for (Action& action : expected) action = cleared(action);
    const auto compare = [](void* actions) {
        for (const int signal : {SIGUSR1, SIGBUS, SIGSYS}) raise(signal);
        return first_other_than(*static_cast<Actions*>(actions));
    };
    EXPECT_EQ(status_of_child(compare, &expected), 0);
    EXPECT_EQ(all_actions(), then);
}

TEST_P(ClearedHandlers, LetAChildsOwnFaultsEndIt) {
    const Actions then = all_actions();
    const auto read_at = [](void* address) {
        return static_cast<int>(*static_cast<volatile char*>(address));
    };
    char* const beyond = bad_page();
    EXPECT_EQ(WTERMSIG(status_of_child(read_at, nullptr)), SIGSEGV);
    EXPECT_EQ(WTERMSIG(status_of_child(read_at, beyond)), SIGBUS);
    munmap(beyond, page_bytes);
    for (int signal : {SIGUSR1, SIGBUS, SIGSEGV, SIGSYS}) {
        const auto be_sent = [](void* number) { return raise(*static_cast<int*>(number)); };
        EXPECT_EQ(WTERMSIG(status_of_child(be_sent, &signal)), signal);
    }
    expect_parent_is_as_before(then);
}

// The mask is no handler: it is the parent's, and what is sent waits.
TEST_P(ClearedHandlers, LeaveTheMask) {
    sigset_t blocked;
    sigset_t former;
    sigemptyset(&blocked);
    for (const int signal : {SIGUSR1, SIGBUS, SIGSYS}) sigaddset(&blocked, signal);
    ASSERT_EQ(sigprocmask(SIG_BLOCK, &blocked, &former), 0);
    const auto be_sent = [](void*) {
        sigset_t mask;
        sigprocmask(SIG_SETMASK, nullptr, &mask);
        int missing = 0;
        for (const int signal : {SIGUSR1, SIGBUS, SIGSYS}) {
            missing += sigismember(&mask, signal) == 1 ? 0 : 1;
            raise(signal);
        }
        return missing;
    };
    EXPECT_EQ(status_of_child(be_sent), 0);
    sigset_t mask;
    sigprocmask(SIG_SETMASK, &former, &mask);
    for (int signal = 1; signal < signals_end; ++signal)
        EXPECT_EQ(sigismember(&mask, signal), sigismember(&blocked, signal) | sigismember(&former, signal));
}

TEST_P(ClearedHandlers, CanBeSetAgainByTheChild) {
    const Actions then = all_actions();
    const auto set_again = [](void*) {
        calls = 0;
        handle(SIGUSR1, count, 0);
        raise(SIGUSR1);
        return calls == 1 ? 0 : 1;
    };
    EXPECT_EQ(status_of_child(set_again), 0);
    expect_parent_is_as_before(then);
}

// A child that has a copy must not touch managed memory (docs/behaviour.md).
using ClearedHandlersOfOneMemory = ClearedHandlers;

TEST_P(ClearedHandlersOfOneMemory, LeaveTheChildItsFarPages) {
    const Actions then = all_actions();
    const auto touch = [](void*) {
        const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (null < 0 || !touched->is_intact()) return 1;
        // The first pages left while the last were read.
        if (syscall(SYS_write, null, touched->data(), page_bytes) != static_cast<long>(page_bytes)) return 2;
        if (action_of(SIGBUS) != Action{} || action_of(SIGSYS) != Action{}) return 3;
        close(null);
        return touched->is_intact() ? 0 : 4;
    };
    EXPECT_EQ(status_of_child(touch), 0);
    expect_parent_is_as_before(then);
}

TEST_P(ClearedHandlers, LetTheChildBecomeAnotherProgram) {
    signal(SIGCHLD, SIG_DFL);  // another program says so when it ends
    const Actions then = all_actions();
    const auto become = [](void*) {
        static char shell[] = "/bin/sh", by[] = "-c", what[] = "exit 7";
        char* const arguments[] = {shell, by, what, nullptr};
        char* const environment[] = {nullptr};
        execve(shell, arguments, environment);
        return 8;
    };
    EXPECT_EQ(WEXITSTATUS(status_of_child(become)), 7);
    expect_parent_is_as_before(then);
}

TEST_P(ClearedHandlers, AreNotToBeSharedAtOnce) {
    const Actions then = all_actions();
    EXPECT_EQ(start([](void*) { return 0; }, nullptr, clear_handlers | CLONE_SIGHAND | CLONE_VM), -EINVAL);
    expect_parent_is_as_before(then);
}

// Without the flag they are the child's as ever.
TEST_P(ClearedHandlers, AreThereWithoutTheFlag) {
    Actions then = all_actions();
    const auto compare = [](void* actions) { return first_other_than(*static_cast<Actions*>(actions)); };
    const long child = start(compare, &then, 0);
    ASSERT_GT(child, 0);
    EXPECT_EQ(status_of(child), 0);
    expect_parent_is_as_before(then);
}

// ---- signals that come while the call is about to be made ----

// Its handler makes a process too, with another answer and another stack.
struct Nested {
    std::uint64_t flags;
    char stack[16 * page_bytes];
    int made;
    int wrong;
    int interval_us;  // of the signals
    int in_vain;      // of them, since the call that they interrupt was last done
};
Nested nested;

void signal_every(int interval_us) {
    nested.interval_us = interval_us;
    const itimerval interval = {{0, interval_us}, {0, interval_us}};
    setitimer(ITIMER_REAL, &interval, nullptr);
}

struct Wanted {
    std::uint64_t flags;
    char* stack;
    std::size_t stack_bytes;
    int code;

    bool shares() const { return (flags & CLONE_VM) != 0; }
};

int answer(void* argument) {
    const Wanted& wanted = *static_cast<Wanted*>(argument);
    const char* const here = static_cast<char*>(__builtin_frame_address(0));
    const bool on_stack = here >= wanted.stack && here < wanted.stack + wanted.stack_bytes;
    return on_stack == wanted.shares() ? wanted.code : 99;
}

// Did it end with that answer, on that stack, and were the registers kept?
bool makes_process(Wanted wanted) {
    clone_args arguments{};
    arguments.flags = wanted.flags;
    if (wanted.shares()) arguments.stack = reinterpret_cast<std::uint64_t>(wanted.stack);
    if (wanted.shares()) arguments.stack_size = wanted.stack_bytes;
    bool registers_kept = false;
    const long child = clone3_and_run(arguments, answer, &wanted, &registers_kept);
    if (child <= 0) return false;
    const int status = status_of(child);
    return registers_kept && status == wanted.code << 8;
}

void make_nested(int) {
    const int error = errno;
    // A call that takes longer than that, on a slow machine, would be made again for ever.
    if (++nested.in_vain % 20 == 0 && nested.interval_us < 100'000) signal_every(2 * nested.interval_us);
    ++nested.made;
    nested.wrong += makes_process({nested.flags, nested.stack, sizeof nested.stack, 5}) ? 0 : 1;
    errno = error;
}

class Storm : public ::testing::TestWithParam<std::uint64_t> {
  protected:
    void SetUp() override {
        nested.flags = GetParam();
        nested.made = nested.wrong = nested.in_vain = 0;
        handle(SIGALRM, make_nested, SA_RESTART);
        signal_every(700);
    }
    void TearDown() override {
        signal_every(0);
        signal(SIGALRM, SIG_DFL);
    }
};

TEST_P(Storm, MakesTheCallAgainAfterTheHandler) {
    static char stack[16 * page_bytes];
    constexpr int enough = 500;
    int wrong = 0;
    while (nested.made < enough) {
        wrong += makes_process({GetParam(), stack, sizeof stack, 6}) ? 0 : 1;
        nested.in_vain = 0;
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(nested.wrong, 0);
}

INSTANTIATE_TEST_SUITE_P(Clone, Storm,
                         ::testing::Values(0, shares_memory, clear_handlers, clear_handlers | shares_memory));

INSTANTIATE_TEST_SUITE_P(Clone, ClearedHandlers, ::testing::Values(0, shares_memory),
                         [](const auto& tested) { return tested.param == 0 ? "OfACopy" : "OfAVfork"; });
INSTANTIATE_TEST_SUITE_P(Clone, ClearedHandlersOfOneMemory, ::testing::Values(shares_memory),
                         [](const auto&) { return "OfAVfork"; });

}  // namespace
