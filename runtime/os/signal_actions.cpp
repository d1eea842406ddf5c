#include "runtime/os/signal_actions.h"

#include <ucontext.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "cxl/spin_lock.h"
#include "runtime/os/signals_blocked.h"

namespace pnode::os {

thread_local unsigned long signals_blocked_in_name __attribute__((tls_model("initial-exec"))) = 0;
thread_local unsigned long signals_pending_in_name __attribute__((tls_model("initial-exec"))) = 0;

namespace {

constexpr unsigned long sa_restorer = 0x04000000;
constexpr unsigned long bit_of(int signal) noexcept {
    return 1UL << (signal - 1);
}

// One for SIGBUS, one for SIGSYS. The lock is held with signals blocked, for a few loads and stores.
struct Taken {
    std::atomic<bool> taken{false};
    cxl::SpinLock lock;
    SignalAction program;
};
constinit Taken taken_signals[2];

Taken& entry(int signal) noexcept {
    return taken_signals[signal == SIGBUS ? 0 : 1];
}

long rt_sigaction(int signal, const SignalAction* next, SignalAction* former) noexcept {
    return system_call(SYS_rt_sigaction, signal, next, former, sizeof(unsigned long));
}

#ifdef __x86_64__
// The very bytes by which unwinders know the end of a signal frame (libgcc, gdb).
asm(R"(
    .text
    .align 16
    .globl pnode_signal_return
    .hidden pnode_signal_return
    .type pnode_signal_return, @function
    nop
pnode_signal_return:
    mov $15, %rax
    syscall
    .size pnode_signal_return, . - pnode_signal_return
)");
#endif

// Is it about an access or call of this thread? Else it was sent, by a process or by the kernel, which tells
// so of bad memory that nobody is reading.
bool is_fault(int signal, const siginfo_t* info) noexcept {
    return info->si_code > 0 && !(signal == SIGBUS && info->si_code == BUS_MCEERR_AO);
}

void default_action(int signal, const siginfo_t* info) noexcept {
    const SignalAction none;
    rt_sigaction(signal, &none, nullptr);
    // A fault is made again when the handler returns; what was sent has to be sent again.
    if (!is_fault(signal, info)) system_call(SYS_tgkill, ::getpid(), system_call(SYS_gettid), signal);
}

}  // namespace

int take_signal(int signal, void (*handler)(int, siginfo_t*, void*), unsigned long mask) noexcept {
    Taken& taken = entry(signal);
    if (taken.taken.exchange(true)) return 0;
    SignalAction ours;
    ours.handler = handler;
    ours.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
#ifdef __x86_64__
    ours.flags |= sa_restorer;
    ours.restorer = pnode_signal_return;
#endif
    ours.mask = mask & ~signals_left_open;
    SignalAction former;
    const long result = rt_sigaction(signal, &ours, &former);
    if (is_error(result)) {
        taken.taken.store(false);
        return error_of(result);
    }
    set_program_action(signal, former);
    return 0;
}

bool is_taken(int signal) noexcept {
    return (signal == SIGBUS || signal == SIGSYS) && entry(signal).taken.load(std::memory_order_acquire);
}

SignalAction program_action(int signal) noexcept {
    const SignalsBlocked signals;
    const std::lock_guard lock(entry(signal).lock);
    return entry(signal).program;
}

void set_program_action(int signal, const SignalAction& action) noexcept {
    const SignalsBlocked signals;
    const std::lock_guard lock(entry(signal).lock);
    entry(signal).program = action;
}

void pass_on(int signal, siginfo_t* info, void* context) noexcept {
    const SignalAction action = program_action(signal);
    const bool fault = is_fault(signal, info);
    const bool blocked = (signals_blocked_in_name & bit_of(signal)) != 0;
    if (!fault && blocked) {
        signals_pending_in_name |= bit_of(signal);
        return;
    }
    if (!fault && action.is_ignore()) return;
    // As the kernel has it: a fault cannot be ignored, nor wait until it is let through (signal(7)).
    if (action.is_default() || action.is_ignore() || (fault && blocked)) return default_action(signal, info);
    if ((action.flags & SA_RESETHAND) != 0) set_program_action(signal, SignalAction());
    const auto* interrupted = static_cast<ucontext_t*>(context);
    unsigned long mask = 0;
    std::memcpy(&mask, &interrupted->uc_sigmask, sizeof mask);
    mask |= action.mask;
    const unsigned long in_name = signals_blocked_in_name;
    signals_blocked_in_name |= mask & signals_left_open;
    if ((action.flags & SA_NODEFER) == 0) signals_blocked_in_name |= bit_of(signal);
    block_signals(mask & ~signals_left_open);
    action.handler(signal, info, context);
    signals_blocked_in_name = in_name;
}

}  // namespace pnode::os
