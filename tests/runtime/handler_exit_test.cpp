// The end of a fault that the faulting thread serves: it goes on as if nothing had been, whatever its
// registers held, and whatever signals come on the way (runtime/os/handler_exit.h).
#include "runtime/os/handler_exit.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

using InlineHandlerExit = HeapTest;

constexpr std::uint64_t seed = 7;

// What a thread's registers held around one read of `address`.
struct Registers {
    std::uint64_t general[14];
    std::uint64_t flags;
    alignas(32) std::uint8_t vector[16][16];
};

constexpr std::uint64_t carry_parity_overflow = 0x805;

// Loads `values` into the registers, reads `address`, and stores what they hold then.
void read_with(const Registers& values, const void* address, Registers* after) {
    const Registers* from = &values;
    asm volatile(
        R"(
        lea -128(%%rsp), %%rsp
        push %%rbp
        push %%rbx
        sub $136, %%rsp
        mov %%rcx, 120(%%rsp)
        push 112(%%rax)
        popfq
        movups 128+16*0(%%rax), %%xmm0
        movups 128+16*1(%%rax), %%xmm1
        movups 128+16*2(%%rax), %%xmm2
        movups 128+16*7(%%rax), %%xmm7
        movups 128+16*8(%%rax), %%xmm8
        movups 128+16*15(%%rax), %%xmm15
        mov 8*1(%%rax), %%rbx
        mov 8*2(%%rax), %%rcx
        mov 8*4(%%rax), %%rsi
        mov 8*5(%%rax), %%rdi
        mov 8*6(%%rax), %%rbp
        mov 8*7(%%rax), %%r8
        mov 8*8(%%rax), %%r9
        mov 8*9(%%rax), %%r10
        mov 8*10(%%rax), %%r11
        mov 8*11(%%rax), %%r12
        mov 8*12(%%rax), %%r13
        mov 8*13(%%rax), %%r14
        movb (%%rdx), %%al
        pushfq
        push %%rcx
        mov 136(%%rsp), %%rcx
        movups %%xmm0, 128+16*0(%%rcx)
        movups %%xmm1, 128+16*1(%%rcx)
        movups %%xmm2, 128+16*2(%%rcx)
        movups %%xmm7, 128+16*7(%%rcx)
        movups %%xmm8, 128+16*8(%%rcx)
        movups %%xmm15, 128+16*15(%%rcx)
        pop 8*2(%%rcx)
        pop 112(%%rcx)
        mov %%rbx, 8*1(%%rcx)
        mov %%rsi, 8*4(%%rcx)
        mov %%rdi, 8*5(%%rcx)
        mov %%rbp, 8*6(%%rcx)
        mov %%r8, 8*7(%%rcx)
        mov %%r9, 8*8(%%rcx)
        mov %%r10, 8*9(%%rcx)
        mov %%r11, 8*10(%%rcx)
        mov %%r12, 8*11(%%rcx)
        mov %%r13, 8*12(%%rcx)
        mov %%r14, 8*13(%%rcx)
        mov %%rdx, 8*3(%%rcx)
        add $136, %%rsp
        pop %%rbx
        pop %%rbp
        lea 128(%%rsp), %%rsp
        )"
        : "+a"(from), "+c"(after), "+d"(address)
        :
        : "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "xmm0", "xmm1", "xmm2", "xmm7", "xmm8",
          "xmm15", "memory", "cc");
}

Registers some_values() {
    Registers values;
    std::uint64_t next = 0x0123456789abcdef;
    for (std::uint64_t& one : values.general) one = next = next * 6364136223846793005 + 1442695040888963407;
    std::memcpy(values.vector, values.general, sizeof values.general);
    std::memset(values.vector[7], 0x77, 9 * 16);
    values.flags = 0x202 | carry_parity_overflow;
    return values;
}

// What differs, or nothing.
std::string difference(const Registers& before, const Registers& after) {
    for (const int index : {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13})
        if (before.general[index] != after.general[index]) return "general " + std::to_string(index);
    for (const int index : {0, 1, 2, 7, 8, 15})
        if (std::memcmp(before.vector[index], after.vector[index], 16) != 0)
            return "vector " + std::to_string(index);
    constexpr std::uint64_t of_arithmetic = 0x8d5;
    return ((before.flags ^ after.flags) & of_arithmetic) != 0 ? "flags" : "";
}

TEST_F(InlineHandlerExit, EveryRegisterIsWhatItWas) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(16, Kind::text, seed);
    const Registers before = some_values();
    Registers after = {};
    for (std::uint64_t page = 0; page < 16; ++page) {
        make_far(buffer, 16);
        read_with(before, buffer + page * page_bytes, &after);
        EXPECT_EQ(difference(before, after), "");
    }
    EXPECT_GE(stats().faults, 16u);
    EXPECT_EQ(wrong_pages(buffer, 16, Kind::text, seed), 0u);
}

TEST_F(InlineHandlerExit, TheMaskIsWhatItWas) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(1, Kind::text, seed);
    sigset_t blocked, former, now;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    for (const int how : {SIG_BLOCK, SIG_UNBLOCK}) {
        pthread_sigmask(how, &blocked, &former);
        make_far(buffer, 1);
        EXPECT_EQ(wrong_pages(buffer, 1, Kind::text, seed), 0u);
        pthread_sigmask(SIG_SETMASK, nullptr, &now);
        for (int signal = 1; signal < 32; ++signal)
            EXPECT_EQ(sigismember(&now, signal),
                      signal == SIGUSR1 ? how == SIG_BLOCK : sigismember(&former, signal))
                << signal;
    }
}

std::atomic<int> alarms{0};

void on_alarm(int) {
    // As handlers do: registers of all kinds.
    volatile double x = 1.5;
    for (int i = 0; i < 20; ++i) x = x * 1.25;
    alarms.fetch_add(1);
}

// Each fault is met by alarms somewhere.
TEST_F(InlineHandlerExit, SignalsMayComeAtAnyTime) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(64, Kind::text, seed);
    struct sigaction action = {}, former = {};
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    ASSERT_EQ(sigaction(SIGALRM, &action, &former), 0);
    const itimerval often = {{0, 50}, {0, 50}}, never = {};
    ASSERT_EQ(setitimer(ITIMER_REAL, &often, nullptr), 0);
    const Registers before = some_values();
    Registers after = {};
    std::string different;
    EXPECT_TRUE(eventually([&] {
        make_far(buffer, 64);
        for (std::uint64_t page = 0; page < 64 && different.empty(); ++page) {
            read_with(before, buffer + page * page_bytes, &after);
            different = difference(before, after);
        }
        return alarms.load() >= 500 || !different.empty();
    }));
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &former, nullptr);
    EXPECT_EQ(different, "");
    EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, seed), 0u);
}

// One instruction after the other, with a signal at each of the way back.
class Stepped {
  public:
    explicit Stepped(pid_t child) : child_(child) {}

    // Until the child ends. How many signals were sent on the way back, and its exit status.
    struct Result {
        int sent = 0;
        int status = 0;
    };
    Result run() {
        Result result;
        constexpr int stops_max = 10'000'000;
        for (int stops = 0; stops < stops_max; ++stops) {
            if (waitpid(child_, &result.status, 0) != child_ || !WIFSTOPPED(result.status)) return result;
            int pass = WSTOPSIG(result.status) == SIGTRAP ? 0 : WSTOPSIG(result.status);
            const bool steps = pass != SIGSTOP;  // the child says that it begins, and nothing else stops it
            if (pass == SIGSTOP) pass = 0;
            began_ = began_ || !steps;
            if (pass == 0 && is_on_the_way()) {
                pass = SIGUSR1;
                ++result.sent;
            }
            if (ptrace(began_ ? PTRACE_SINGLESTEP : PTRACE_CONT, child_, nullptr, pass) != 0) break;
        }
        kill(child_, SIGKILL);
        return result;
    }

  private:
    // The child's addresses are ours.
    bool is_on_the_way() {
        user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, child_, nullptr, &registers) != 0 || registers.rip == last_) return false;
        ucontext_t context = {};
        std::uint64_t stack[6] = {};
        context.uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(registers.rip);
        context.uc_mcontext.gregs[REG_RSP] = reinterpret_cast<greg_t>(stack);
        stack[5] = 1;
        if (os::where_handler_leads(context) == nullptr) return false;
        last_ = registers.rip;
        return true;
    }

    pid_t child_;
    bool began_ = false;
    unsigned long long last_ = 0;  // where the handler returns to, which is stopped at again
};

void on_usr1(int) {
    on_alarm(0);
}

TEST_F(InlineHandlerExit, SignalsMayComeAtEachInstructionOfTheWayBack) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(10);
        struct sigaction action = {};
        action.sa_handler = on_usr1;
        sigaction(SIGUSR1, &action, nullptr);
        open_heap();
        std::uint8_t* const buffer = alloc_filled(1, Kind::text, seed);
        make_far(buffer, 1);
        const Registers before = some_values();
        Registers after = {};
        raise(SIGSTOP);
        read_with(before, buffer, &after);
        const bool right = difference(before, after).empty() && page_is(buffer, Kind::text, seed);
        _exit(right && alarms.load() != 0 ? 0 : 11);
    }
    const Stepped::Result result = Stepped(child).run();
    EXPECT_TRUE(WIFEXITED(result.status)) << result.status;
    EXPECT_EQ(WEXITSTATUS(result.status), 0);
    EXPECT_GE(result.sent, 20);
}

}  // namespace
}  // namespace pnode::test
