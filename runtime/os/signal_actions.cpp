#include "runtime/os/signal_actions.h"

#include <ucontext.h>

#include <cerrno>
#include <cstring>
#include <mutex>

#include "runtime/os/injection.h"
#include "runtime/os/signals_blocked.h"

namespace pnode::os {

thread_local unsigned long signals_blocked_in_name __attribute__((tls_model("initial-exec"))) = 0;
thread_local unsigned long signals_pending_in_name __attribute__((tls_model("initial-exec"))) = 0;
thread_local volatile unsigned long signals_waiting __attribute__((tls_model("initial-exec"))) = 0;

namespace {

constexpr unsigned long sa_restorer = 0x04000000;
constexpr unsigned long bit_of(int signal) noexcept {
    return 1UL << (signal - 1);
}

// One for SIGBUS, one for SIGSYS.
using Handler = void (*)(int signal, siginfo_t* info, void* context);
struct Taken {
    std::atomic<bool> taken{false};
    std::atomic<Handler> ours{nullptr};
    KeptAction program;
};
constinit Taken taken_signals[2];
constinit std::atomic<Deliver> deliver{nullptr};
constinit std::atomic<MayDeliver> may_deliver{nullptr};

// What came with those that wait, SIGBUS and SIGSYS.
thread_local siginfo_t waiting[2] __attribute__((tls_model("initial-exec")));

// The masks in name of processes that wait for a child of vfork(), outermost first.
struct BeforeVfork {
    long process;
    unsigned long blocked;
    unsigned long pending;
};
constexpr unsigned vforks_max = 4;  // children of such children; what is deeper has its parent's mask
thread_local BeforeVfork before_vfork[vforks_max] __attribute__((tls_model("initial-exec")));
thread_local unsigned vforks __attribute__((tls_model("initial-exec"))) = 0;

Taken& entry(int signal) noexcept {
    return taken_signals[signal == SIGBUS ? 0 : 1];
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
    set_kernel_action(signal, &none, nullptr);
    // A fault is made again when the handler returns; what was sent has to be sent again.
    if (!is_fault(signal, info)) system_call(SYS_tgkill, ::getpid(), system_call(SYS_gettid), signal);
}

// As the kernel has it: of a signal that is pending already nothing more is kept.
void keep(int signal, const siginfo_t* info) noexcept {
    if (((signals_waiting | signals_pending_in_name) & bit_of(signal)) == 0)
        waiting[signal == SIGBUS ? 0 : 1] = *info;
}

void wait(int signal, const siginfo_t* info) noexcept {
    keep(signal, info);
    signals_waiting = signals_waiting | bit_of(signal);
}

// Whose word counts about what the program asked for: the kernel's table, which a process has to itself,
// tells it by which of these it has.
enum class Program : std::uint8_t { recorded, has_default, ignores };

template <Program>
void on_taken(int signal, siginfo_t* info, void* context) {
    recall_signals_after_vfork();
    entry(signal).ours.load(std::memory_order_relaxed)(signal, info, context);
    send_waiting_signals(context);
}

SignalAction ignoring() noexcept {
    SignalAction action;
    action.handler = reinterpret_cast<Handler>(1);  // SIG_IGN
    return action;
}

SignalAction kernel_action(int signal) noexcept {
    SignalAction action;
    set_kernel_action(signal, nullptr, &action);
    return action;
}

bool is_cleared(const SignalAction& told) noexcept {
    return told.handler == on_taken<Program::has_default> || told.handler == on_taken<Program::ignores>;
}

}  // namespace

void remember_signals_for_vfork() noexcept {
    recall_signals_after_vfork();
    if (vforks < vforks_max)
        before_vfork[vforks++] = {system_call(SYS_getpid), signals_blocked_in_name, signals_pending_in_name};
}

void recall_signals_after_vfork() noexcept {
    if (vforks == 0) return;
    const long process = system_call(SYS_getpid);
    for (unsigned index = 0; index < vforks; ++index) {
        if (before_vfork[index].process != process) continue;
        signals_blocked_in_name = before_vfork[index].blocked;
        signals_pending_in_name = before_vfork[index].pending;
        vforks = index;
    }
}

// They are blocked for the few instructions to the end of the handler, which touch nothing but its stack: so
// they come where the thread goes on, and not here.
void send_waiting_signals(const void* context) noexcept {
    if (signals_waiting == 0) return;
    const MayDeliver may = may_deliver.load(std::memory_order_relaxed);
    if (may == nullptr || !may(context)) return;
    const unsigned long due = signals_waiting;
    system_call(SYS_rt_sigprocmask, SIG_BLOCK, &signals_left_open, nullptr, sizeof signals_left_open);
    const long process = system_call(SYS_getpid);
    const long thread = system_call(SYS_gettid);
    for (const int signal : {SIGBUS, SIGSYS}) {
        if ((due & bit_of(signal)) == 0) continue;
        siginfo_t* const info = &waiting[signal == SIGBUS ? 0 : 1];
        if (is_error(system_call(SYS_rt_tgsigqueueinfo, process, thread, signal, info)))
            system_call(SYS_tgkill, process, thread, signal);
    }
    signals_waiting = 0;
}

SignalAction KeptAction::read() const noexcept {
    for (;;) {
        const std::uint32_t generation = generation_.load(std::memory_order_acquire);
        const Words& words = words_[generation % 2];
        SignalAction action;
        action.handler =
            reinterpret_cast<void (*)(int, siginfo_t*, void*)>(words.handler.load(std::memory_order_acquire));
        action.flags = words.flags.load(std::memory_order_acquire);
        action.restorer = reinterpret_cast<void (*)()>(words.restorer.load(std::memory_order_acquire));
        action.mask = words.mask.load(std::memory_order_acquire);
        // Nobody writes to these words before the other ones count.
        if (generation_.load(std::memory_order_acquire) == generation) return action;
    }
}

void KeptAction::write(const SignalAction& action) noexcept {
    const std::uint32_t next = generation_.load(std::memory_order_relaxed) + 1;
    Words& words = words_[next % 2];
    words.handler.store(reinterpret_cast<std::uint64_t>(action.handler), std::memory_order_release);
    words.flags.store(action.flags, std::memory_order_release);
    words.restorer.store(reinterpret_cast<std::uint64_t>(action.restorer), std::memory_order_release);
    words.mask.store(action.mask, std::memory_order_release);
    generation_.store(next, std::memory_order_release);
}

long set_kernel_action(int signal, const SignalAction* next, SignalAction* former) noexcept {
    return system_call(SYS_rt_sigaction, signal, next, former, sizeof(unsigned long));
}

SignalAction action_of_ours(void (*handler)(int, siginfo_t*, void*), unsigned long flags,
                            unsigned long mask) noexcept {
    SignalAction ours;
    ours.handler = handler;
    ours.flags = flags;
#ifdef __x86_64__
    ours.flags |= sa_restorer;
    ours.restorer = pnode_signal_return;
#endif
    ours.mask = mask & ~signals_left_open;
    return ours;
}

int take_signal(int signal, void (*handler)(int, siginfo_t*, void*), unsigned long mask) noexcept {
    Taken& taken = entry(signal);
    if (taken.taken.exchange(true)) return 0;
    taken.ours.store(handler);
    SignalAction former;
    int error = injected(Call::signal_action);
    if (error == 0) error = error_of(set_kernel_action(signal, nullptr, &former));
    if (error == 0) {
        // What the program is not told must not end its system calls with EINTR either.
        const bool has_handler = !former.is_default() && !former.is_ignore();
        const unsigned long restart = has_handler ? former.flags & SA_RESTART : SA_RESTART;
        const SignalAction ours =
            action_of_ours(on_taken<Program::recorded>, SA_SIGINFO | SA_ONSTACK | SA_NODEFER | restart, mask);
        error = error_of(set_kernel_action(signal, &ours, &former));
    }
    if (error != 0) {
        taken.taken.store(false);
        return error;
    }
    set_program_action(signal, former);
    return 0;
}

bool is_taken(int signal) noexcept {
    return (signal == SIGBUS || signal == SIGSYS) && entry(signal).taken.load(std::memory_order_acquire);
}

SignalAction program_action(int signal) noexcept {
    const SignalAction told = kernel_action(signal);
    if (told.handler == on_taken<Program::has_default>) return SignalAction();
    if (told.handler == on_taken<Program::ignores>) return ignoring();
    return entry(signal).program.read();
}

SignalAction action_when_cleared(int signal) noexcept {
    SignalAction action = kernel_action(signal);
    const bool ignores = is_taken(signal) ? program_action(signal).is_ignore() : action.is_ignore();
    if (!is_taken(signal)) return ignores ? ignoring() : SignalAction();
    action.handler = ignores ? on_taken<Program::ignores> : on_taken<Program::has_default>;
    action.flags |= SA_RESTART;
    return action;
}

void set_program_action(int signal, const SignalAction& action) noexcept {
    const SignalsBlocked signals;
    const std::lock_guard lock(entry(signal).program.lock);
    entry(signal).program.write(action);
}

void signal_actions_after_fork_in_child() noexcept {
    for (Taken& taken : taken_signals) taken.program.after_fork_in_child();
    for (const int signal : {SIGBUS, SIGSYS}) {
        SignalAction told = kernel_action(signal);
        if (!is_taken(signal) || !is_cleared(told)) continue;
        set_program_action(signal, program_action(signal));
        told.handler = on_taken<Program::recorded>;
        set_kernel_action(signal, &told, nullptr);
    }
}

void deliver_by(Deliver function, MayDeliver may) noexcept {
    may_deliver.store(may);
    deliver.store(function);
}

void pass_on(int signal, siginfo_t* info, void* context) noexcept {
    const SignalAction action = program_action(signal);
    const bool fault = is_fault(signal, info);
    const bool blocked = (signals_blocked_in_name & bit_of(signal)) != 0;
    if (!fault && blocked) {
        keep(signal, info);
        signals_pending_in_name |= bit_of(signal);
        return;
    }
    if (!fault && action.is_ignore()) return;
    // As the kernel has it: a fault cannot be ignored, nor wait until it is let through (signal(7)).
    if (action.is_default() || action.is_ignore() || (fault && blocked)) return default_action(signal, info);
    const MayDeliver may = may_deliver.load();
    if (!fault && may != nullptr && !may(context)) return wait(signal, info);
    if ((action.flags & SA_RESETHAND) != 0) set_program_action(signal, SignalAction());
    const auto* interrupted = static_cast<ucontext_t*>(context);
    unsigned long mask = 0;
    std::memcpy(&mask, &interrupted->uc_sigmask, sizeof mask);
    mask |= action.mask;
    if (const Deliver function = deliver.load()) {
        if ((action.flags & SA_NODEFER) == 0) mask |= bit_of(signal);
        return function(signal, *info, context, action, mask);
    }
    const unsigned long in_name = signals_blocked_in_name;
    signals_blocked_in_name |= mask & signals_left_open;
    if ((action.flags & SA_NODEFER) == 0) signals_blocked_in_name |= bit_of(signal);
    block_signals(mask & ~signals_left_open);
    action.handler(signal, info, context);
    signals_blocked_in_name = in_name;
}

}  // namespace pnode::os
