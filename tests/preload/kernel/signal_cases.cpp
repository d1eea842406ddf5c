// Signals: the structures of their calls, frames on stacks that are far, and memory that leaves while a
// handler runs.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

#include <algorithm>
#include <chrono>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

constexpr std::uint64_t bit_of(int signal) {
    return std::uint64_t{1} << (signal - 1);
}

// As the kernel has it.
struct KernelAction {
    void* handler;
    unsigned long flags;
    void* restorer;
    std::uint64_t mask;
};

void action_case(Memory& memory, Outcome& outcome) {
    auto* const before = memory.put<KernelAction>();
    memory.away();
    outcome.ok("rt_sigaction, read", syscall(SYS_rt_sigaction, SIGUSR2, nullptr, before, 8));
    auto* const action =
        memory.put<KernelAction>({reinterpret_cast<void*>(SIG_IGN), 0, nullptr, bit_of(SIGHUP)});
    memory.away();
    outcome.ok("rt_sigaction", syscall(SYS_rt_sigaction, SIGUSR2, action, before, 8));
    outcome.ok("raise", raise(SIGUSR2));  // ignored
    memory.away();
    outcome.ok("rt_sigaction, back", syscall(SYS_rt_sigaction, SIGUSR2, before, action, 8));
    auto* const by_libc = memory.put<struct sigaction>();
    memory.away();
    outcome.ok("sigaction", sigaction(SIGUSR2, nullptr, by_libc));
    memory.forget(before);
    memory.forget(action);
    memory.forget(by_libc);
}

void mask_case(Memory& memory, Outcome& outcome) {
    auto* const set = memory.put(bit_of(SIGUSR2));
    auto* const before = memory.put<std::uint64_t>(0);
    memory.away();
    outcome.ok("block", syscall(SYS_rt_sigprocmask, SIG_BLOCK, set, before, 8));
    outcome.ok("raise", raise(SIGUSR2));
    auto* const pending = memory.put<std::uint64_t>(0);
    memory.away();
    outcome.ok("rt_sigpending", syscall(SYS_rt_sigpending, pending, 8));
    outcome.check("it is pending", (*pending & bit_of(SIGUSR2)) != 0);
    auto* const info = memory.put<siginfo_t>();
    auto* const timeout = memory.put<timespec>({5, 0});
    memory.away();
    outcome.ok("rt_sigtimedwait", syscall(SYS_rt_sigtimedwait, set, info, timeout, 8));
    outcome.note("signal", info->si_signo);
    *timeout = {0, 1000};
    memory.away();
    outcome.note("none left", syscall(SYS_rt_sigtimedwait, set, info, timeout, 8));
    memory.away();
    outcome.ok("restore", syscall(SYS_rt_sigprocmask, SIG_SETMASK, before, nullptr, 8));
    for (const void* object :
         {static_cast<void*>(before), static_cast<void*>(pending), static_cast<void*>(info)})
        memory.forget(object);
}

void timedwait_that_waits_case(Memory& memory, Outcome& outcome) {
    auto* const set = memory.put(bit_of(SIGUSR2));
    auto* const info = memory.put<siginfo_t>();
    auto* const timeout = memory.put<timespec>({20, 0});
    std::atomic<pthread_t> sleeper = {};
    memory.away();
    outcome.ok("rt_sigtimedwait", while_asleep(
                                      memory,
                                      [&] {
                                          sigset_t blocked;
                                          sigemptyset(&blocked);
                                          sigaddset(&blocked, SIGUSR2);
                                          pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
                                          sleeper = pthread_self();
                                          return syscall(SYS_rt_sigtimedwait, set, info, timeout, 8);
                                      },
                                      [&] {
                                          const sigval value = {.sival_int = 4321};
                                          pthread_sigqueue(sleeper, SIGUSR2, value);
                                      }));
    outcome.note("signal", info->si_signo);
    outcome.note("value", info->si_value.sival_int);
    memory.forget(info);
}

void queue_case(Memory& memory, Outcome& outcome) {
    sigset_t blocked;
    sigset_t before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    auto* const info = memory.put<siginfo_t>();
    info->si_signo = SIGUSR2;
    info->si_code = SI_QUEUE;
    info->si_value.sival_int = 1234;
    memory.away();
    outcome.ok("rt_tgsigqueueinfo", syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGUSR2, info));
    auto* const wanted = memory.put(bit_of(SIGUSR2));
    memory.away();
    const Fd signals(syscall(SYS_signalfd4, -1, wanted, 8, SFD_CLOEXEC | SFD_NONBLOCK));
    outcome.check("signalfd4", signals >= 0);
    auto* const told = memory.put<signalfd_siginfo>();
    memory.away();
    outcome.ok("read", read(signals, told, sizeof(*told)));
    outcome.note("value", told->ssi_int);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void suspend_case(Memory& memory, Outcome& outcome) {
    static std::atomic<int> handled;
    handled = 0;
    struct sigaction action = {};
    struct sigaction before = {};
    action.sa_handler = [](int) { ++handled; };
    sigaction(SIGUSR2, &action, &before);
    auto* const mask = memory.put<std::uint64_t>(0);
    std::atomic<pthread_t> sleeper = {};
    memory.away();
    outcome.note("rt_sigsuspend", while_asleep(
                                      memory,
                                      [&] {  // one that comes before it sleeps waits
                                          sigset_t usr2;
                                          sigemptyset(&usr2);
                                          sigaddset(&usr2, SIGUSR2);
                                          pthread_sigmask(SIG_BLOCK, &usr2, nullptr);
                                          sleeper = pthread_self();
                                          return syscall(SYS_rt_sigsuspend, mask, 8);
                                      },
                                      [&] { pthread_kill(sleeper, SIGUSR2); }));
    outcome.note("handled", handled);
    sigaction(SIGUSR2, &before, nullptr);
}

// What the handlers below need to know.
struct Handling {
    Memory* memory;
    bool leave_inside;
    int calls;
    int value;
    const std::byte* stack_end;
    std::size_t stack_bytes;
    bool on_the_stack;
};
Handling handling;

void handler(int, siginfo_t* info, void*) {
    const auto* const here = static_cast<const std::byte*>(__builtin_frame_address(0));
    handling.on_the_stack = here < handling.stack_end && here >= handling.stack_end - handling.stack_bytes;
    handling.value = info->si_value.sival_int;
    ++handling.calls;
    if (handling.leave_inside) handling.memory->nudge();
}

// On an alternate stack: when the handler is entered, and again when it returns.
void alternate_stack_case(Memory& memory, Outcome& outcome) {
    constexpr std::size_t stack_bytes = 128 * 1024;
    std::byte* const stack = memory.place_pages(stack_bytes);
    fill_with_text(stack, stack_bytes, 2);
    auto* const described = memory.put<stack_t>({stack, 0, stack_bytes});
    auto* const former = memory.put<stack_t>();
    struct sigaction action = {};
    struct sigaction before = {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGUSR2, &action, &before);
    memory.away();
    outcome.ok("sigaltstack", sigaltstack(described, former));
    for (const bool leave_inside : {false, true}) {
        handling = {&memory, leave_inside, 0, 0, stack + stack_bytes, stack_bytes, false};
        const sigval value = {.sival_int = 5};
        memory.away();
        outcome.ok("signal", pthread_sigqueue(pthread_self(), SIGUSR2, value));
        outcome.note("handled", handling.calls);
        outcome.note("value", handling.value);
        outcome.check("there", handling.on_the_stack);
    }
    memory.away();
    outcome.ok("sigaltstack, back", sigaltstack(former, nullptr));
    sigaction(SIGUSR2, &before, nullptr);
    for (const void* object :
         {static_cast<void*>(stack), static_cast<void*>(described), static_cast<void*>(former)})
        memory.forget(object);
}

// A thread whose stack is the program's own memory. The part below its stack pointer is far when a signal
// comes.
void thread_stack_case(Memory& memory, Outcome& outcome) {
    constexpr std::size_t stack_bytes = 512 * 1024;
    std::byte* const stack = memory.place_pages(stack_bytes);
    memory.forget(stack);
    struct sigaction action = {};
    struct sigaction before = {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGUSR2, &action, &before);
    handling = {&memory, true, 0, 0, stack + stack_bytes, stack_bytes, false};
    const Ends ends = new_pipe();
    struct Shared {
        int fd;
        long got;
        int error;
    } shared = {ends.out, 0, 0};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    outcome.note("setstack", pthread_attr_setstack(&attributes, stack, stack_bytes));
    memory.away();
    pthread_t thread = {};
    const auto body = [](void* argument) -> void* {
        auto* const mine = static_cast<Shared*>(argument);
        char text[3000] = {};
        do {
            mine->got = read(mine->fd, text, sizeof(text));
            mine->error = errno;
        } while (mine->got == -1 && mine->error == EINTR);
        return nullptr;
    };
    outcome.note("create", pthread_create(&thread, &attributes, body, &shared));
    for (int i = 0; i < 20; ++i) {
        memory.nudge();
        const sigval value = {.sival_int = i};
        outcome.note("signal", pthread_sigqueue(thread, SIGUSR2, value));
        std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
    memory.nudge();
    const std::string text(3000, 't');
    outcome.ok("write", write(ends.in, text.data(), text.size()));
    outcome.note("join", pthread_join(thread, nullptr));
    outcome.note("read", shared.got);
    outcome.check("signals were handled there", handling.calls > 0 && handling.on_the_stack);
    pthread_attr_destroy(&attributes);
    sigaction(SIGUSR2, &before, nullptr);
}

// A wrong access still ends where it should, with the far memory's stack in use.
void segv_case(Memory& memory, Outcome& outcome) {
    static sigjmp_buf back;
    static void* volatile fault_address;
    constexpr std::size_t stack_bytes = 128 * 1024;
    std::byte* const stack = memory.place_pages(stack_bytes);
    memory.forget(stack);
    std::byte* const forbidden = memory.forbidden_page();
    const stack_t described = {stack, 0, stack_bytes};
    stack_t former = {};
    struct sigaction action = {};
    struct sigaction before = {};
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
        fault_address = info->si_addr;
        siglongjmp(back, 1);
    };
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before);
    outcome.ok("sigaltstack", sigaltstack(&described, &former));
    fault_address = nullptr;
    volatile bool refused = true;
    memory.away();
    if (sigsetjmp(back, 1) == 0) {
        *static_cast<volatile std::byte*>(forbidden) = std::byte{1};
        refused = false;
    }
    outcome.check("refused", refused);
    outcome.check("address", fault_address == forbidden);
    sigaltstack(&former, nullptr);
    sigaction(SIGSEGV, &before, nullptr);
}

constexpr Case cases[] = {
    {"SignalActions", Access::synchronous, action_case, false},
    {"SignalMasks", Access::synchronous, mask_case, false},
    {"SigtimedwaitThatWaits", Access::asleep, timedwait_that_waits_case, false},
    {"SignalQueueAndSignalfd", Access::synchronous, queue_case, false},
    {"SigsuspendThatWaits", Access::asleep, suspend_case, false},
    {"AlternateStack", Access::signal, alternate_stack_case, false},
    {"ThreadStack", Access::signal, thread_stack_case, false},
    {"SegvOnAnAlternateStack", Access::signal, segv_case, false},
};

}  // namespace

std::span<const Case> signal_cases() {
    return cases;
}

}  // namespace kernel_access
