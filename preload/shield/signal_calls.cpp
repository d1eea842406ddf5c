#include "preload/shield/signal_calls.h"

#include <signal.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "preload/shield/alternate_stacks.h"
#include "preload/shield/clones.h"
#include "preload/shield/held_call.h"
#include "preload/shield/open_call.h"
#include "preload/shield/signal_frames.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"

namespace pnode::preload {
namespace {

using os::signals_blocked_in_name;
using os::signals_left_open;
using os::signals_pending_in_name;

constexpr int signals_end = 65;
constexpr unsigned long set_bytes = sizeof(unsigned long);

// What the program asked for, where it asked for a function.
constinit os::KeptAction kept[signals_end];

// The process whose memory this is.
constinit std::atomic<long> shielded_process{0};

unsigned long mask_of(const ucontext_t& context) noexcept {
    unsigned long mask = 0;
    std::memcpy(&mask, &context.uc_sigmask, sizeof mask);
    return mask;
}

void set_mask(ucontext_t* context, unsigned long mask) noexcept {
    std::memcpy(&context->uc_sigmask, &mask, sizeof mask);
}

// Sent while it was blocked in name, and open now: sent again when the handler that we are in is done.
void send_pending() noexcept {
    const unsigned long due = signals_pending_in_name & ~signals_blocked_in_name;
    if (due == 0) return;
    signals_pending_in_name &= ~due;
    os::signals_waiting = os::signals_waiting | due;
}

unsigned long changed(unsigned long before, long how, unsigned long set) noexcept {
    if (how == SIG_BLOCK) return before | set;
    return how == SIG_UNBLOCK ? before & ~set : set;
}

// Any signal of the program's but the two.
void on_signal(int signal, siginfo_t* info, void* context) {
    const int saved_errno = errno;
    os::recall_signals_after_vfork();
    give_alternate_stack(static_cast<ucontext_t*>(context));
    leave_clone_stub(static_cast<ucontext_t*>(context));
    const auto& interrupted = *static_cast<ucontext_t*>(context);
    const OpenCall* const call = interrupted_call(interrupted);
    const os::SignalAction action = kept[signal].read();
    // sigsuspend(2) and its kin have another mask for the handler than for what goes on after it.
    const bool other = call != nullptr && call->temporary_mask != nullptr;
    unsigned long blocked = (other ? *call->temporary_mask : mask_of(interrupted)) | action.mask;
    if ((action.flags & SA_NODEFER) == 0) blocked |= 1UL << (signal - 1);
    begin_handler(signal, *info, context, action, blocked);
    errno = saved_errno;
    os::send_waiting_signals(context);
}

bool is_function(const os::SignalAction& action) noexcept {
    return !action.is_default() && !action.is_ignore();
}

// As the kernel is told it.
os::SignalAction as_kernel_has_it(const os::SignalAction& action) noexcept {
    if (is_function(action))
        return os::action_of_ours(on_signal, action.flags | SA_SIGINFO | SA_ONSTACK, ~0UL);
    os::SignalAction open = action;
    open.mask &= ~signals_left_open;
    return open;
}

// For SIGBUS and SIGSYS themselves. A child of vfork() has no say in what its parent does.
long change_taken_action(int signal, const os::SignalAction* next, os::SignalAction* former) noexcept {
    *former = os::program_action(signal);
    if (next != nullptr && is_shielded_process()) os::set_program_action(signal, *next);
    return 0;
}

// In a child of vfork() the kernel's table is its own, and ours is its parent's.
long change_action_of_child(int signal, const os::SignalAction* next, os::SignalAction* former) noexcept {
    os::SignalAction open;
    if (next != nullptr) open = *next;
    open.mask &= ~signals_left_open;
    return os::set_kernel_action(signal, next != nullptr ? &open : nullptr, former);
}

long change_other_action(int signal, const os::SignalAction* next, os::SignalAction* former) noexcept {
    if (next == nullptr) return os::set_kernel_action(signal, nullptr, former);
    const os::SignalsBlocked signals;
    const std::lock_guard lock(kept[signal].lock);
    const os::SignalAction before = kept[signal].read();
    const os::SignalAction told = as_kernel_has_it(*next);
    if (is_function(*next)) kept[signal].write(*next);
    const long result = os::set_kernel_action(signal, &told, former);
    if (former->handler == on_signal) *former = before;
    if (os::is_error(result) && is_function(*next)) kept[signal].write(before);
    return result;
}

}  // namespace

unsigned long mask_as_program_sees_it(const ucontext_t& context) noexcept {
    return (mask_of(context) & ~signals_left_open) | signals_blocked_in_name;
}

void set_mask_by_program(ucontext_t* context, unsigned long mask) noexcept {
    set_mask(context, mask & ~signals_left_open);
    signals_blocked_in_name = mask & signals_left_open;
    send_pending();
}

long change_mask(ucontext_t* context, const long (&arguments)[6]) noexcept {
    const auto from = static_cast<std::uint64_t>(arguments[1]);
    const auto to = static_cast<std::uint64_t>(arguments[2]);
    if (arguments[3] != static_cast<long>(set_bytes)) return -EINVAL;
    const unsigned long before = mask_as_program_sees_it(*context);
    if (from != 0) {
        constexpr unsigned long never_blocked = (1UL << (SIGKILL - 1)) | (1UL << (SIGSTOP - 1));
        unsigned long set = 0;
        Hold hold;
        hold.add(from, sizeof set);
        if (!peek(&set, from, sizeof set)) return -EFAULT;
        if (arguments[0] != SIG_BLOCK && arguments[0] != SIG_UNBLOCK && arguments[0] != SIG_SETMASK)
            return -EINVAL;
        set_mask_by_program(context, changed(before, arguments[0], set) & ~never_blocked);
    }
    if (to == 0) return 0;
    Hold hold;
    hold.add(to, sizeof before);
    return poke(to, &before, sizeof before) ? 0 : -EFAULT;
}

long change_action(const long (&arguments)[6]) noexcept {
    const auto signal = static_cast<int>(arguments[0]);
    const auto from = static_cast<std::uint64_t>(arguments[1]);
    const auto to = static_cast<std::uint64_t>(arguments[2]);
    if (arguments[3] != static_cast<long>(set_bytes) || signal < 1 || signal >= signals_end) return -EINVAL;
    os::SignalAction next;
    os::SignalAction former;
    Hold hold;
    hold.add(from, from != 0 ? sizeof next : 0);
    hold.add(to, to != 0 ? sizeof next : 0);
    if (from != 0 && !peek(&next, from, sizeof next)) return -EFAULT;
    const auto change = os::is_taken(signal)    ? change_taken_action
                        : is_shielded_process() ? change_other_action
                                                : change_action_of_child;
    const long result = change(signal, from != 0 ? &next : nullptr, &former);
    if (os::is_error(result)) return result;
    if (former.handler == on_signal) former = kept[signal].read();
    return to == 0 || poke(to, &former, sizeof former) ? result : -EFAULT;
}

bool is_shielded_process() noexcept {
    return shielded_process.load(std::memory_order_relaxed) == os::system_call(SYS_getpid);
}

void signal_calls_begin() noexcept {
    shielded_process.store(os::system_call(SYS_getpid));
    os::deliver_by(begin_handler, may_begin_handler);
}

void signal_calls_after_fork_in_child() noexcept {
    shielded_process.store(os::system_call(SYS_getpid));
    for (os::KeptAction& action : kept) action.after_fork_in_child();
}

void take_over_inherited_mask() noexcept {
    unsigned long mask = 0;
    os::system_call(SYS_rt_sigprocmask, SIG_UNBLOCK, &signals_left_open, &mask, set_bytes);
    signals_blocked_in_name = mask & signals_left_open;
}

}  // namespace pnode::preload
