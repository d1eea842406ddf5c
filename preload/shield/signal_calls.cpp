#include "preload/shield/signal_calls.h"

#include <signal.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "preload/shield/held_call.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"

namespace pnode::preload {
namespace {

using os::signals_blocked_in_name;
using os::signals_left_open;
using os::signals_pending_in_name;

constexpr int signals_end = 65;
constexpr unsigned long set_bytes = sizeof(unsigned long);

// Which of the two each action's mask had, to be told when it is asked for.
constinit std::atomic<unsigned long> left_out[signals_end];

unsigned long mask_of(const ucontext_t& context) noexcept {
    unsigned long mask = 0;
    std::memcpy(&mask, &context.uc_sigmask, sizeof mask);
    return mask;
}

void set_mask(ucontext_t* context, unsigned long mask) noexcept {
    std::memcpy(&context->uc_sigmask, &mask, sizeof mask);
}

// Sent while it was blocked in name, and open now: sent again, for the handler to pass on.
void send_pending() noexcept {
    const unsigned long due = signals_pending_in_name & ~signals_blocked_in_name;
    if (due == 0) return;
    signals_pending_in_name &= ~due;
    for (const int signal : {SIGBUS, SIGSYS}) {
        if ((due & (1UL << (signal - 1))) != 0)
            os::system_call(SYS_tgkill, os::system_call(SYS_getpid), os::system_call(SYS_gettid), signal);
    }
}

unsigned long changed(unsigned long before, long how, unsigned long set) noexcept {
    if (how == SIG_BLOCK) return before | set;
    return how == SIG_UNBLOCK ? before & ~set : set;
}

// For SIGBUS and SIGSYS themselves.
long change_taken_action(int signal, const os::SignalAction* next, std::uint64_t former) noexcept {
    const os::SignalAction before = os::program_action(signal);
    if (next != nullptr) os::set_program_action(signal, *next);
    return former == 0 || poke(former, &before, sizeof before) ? 0 : -EFAULT;
}

}  // namespace

long change_mask(ucontext_t* context, const long (&arguments)[6]) noexcept {
    const auto from = static_cast<std::uint64_t>(arguments[1]);
    const auto to = static_cast<std::uint64_t>(arguments[2]);
    if (arguments[3] != static_cast<long>(set_bytes)) return -EINVAL;
    const unsigned long before = (mask_of(*context) & ~signals_left_open) | signals_blocked_in_name;
    if (from != 0) {
        constexpr unsigned long never_blocked = (1UL << (SIGKILL - 1)) | (1UL << (SIGSTOP - 1));
        unsigned long set = 0;
        Hold hold;
        hold.add(from, sizeof set);
        if (!peek(&set, from, sizeof set)) return -EFAULT;
        if (arguments[0] != SIG_BLOCK && arguments[0] != SIG_UNBLOCK && arguments[0] != SIG_SETMASK)
            return -EINVAL;
        const unsigned long after = changed(before, arguments[0], set) & ~never_blocked;
        set_mask(context, after & ~signals_left_open);
        signals_blocked_in_name = after & signals_left_open;
        send_pending();
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
    Hold hold;
    hold.add(from, from != 0 ? sizeof next : 0);
    hold.add(to, to != 0 ? sizeof next : 0);
    if (from != 0 && !peek(&next, from, sizeof next)) return -EFAULT;
    if (os::is_taken(signal)) return change_taken_action(signal, from != 0 ? &next : nullptr, to);
    const unsigned long bits = next.mask & signals_left_open;
    next.mask &= ~signals_left_open;
    os::SignalAction former;
    const long result =
        os::system_call(SYS_rt_sigaction, signal, from != 0 ? &next : nullptr, &former, set_bytes);
    if (os::is_error(result)) return result;
    former.mask |= from != 0 ? left_out[signal].exchange(bits) : left_out[signal].load();
    return to == 0 || poke(to, &former, sizeof former) ? result : -EFAULT;
}

void open_returning_mask(std::uint64_t frame) noexcept {
    auto* returning = reinterpret_cast<ucontext_t*>(frame);
    const unsigned long mask = mask_of(*returning);
    if ((mask & signals_left_open) == 0) return;
    signals_blocked_in_name |= mask & signals_left_open;
    set_mask(returning, mask & ~signals_left_open);
}

BlockedForExec::BlockedForExec() noexcept : changed_(signals_blocked_in_name != 0) {
    if (changed_)
        os::system_call(SYS_rt_sigprocmask, SIG_BLOCK, &signals_blocked_in_name, nullptr, set_bytes);
}

BlockedForExec::~BlockedForExec() {
    if (changed_) os::system_call(SYS_rt_sigprocmask, SIG_UNBLOCK, &signals_left_open, nullptr, set_bytes);
}

void take_over_inherited_mask() noexcept {
    unsigned long mask = 0;
    os::system_call(SYS_rt_sigprocmask, SIG_UNBLOCK, &signals_left_open, &mask, set_bytes);
    signals_blocked_in_name = mask & signals_left_open;
}

}  // namespace pnode::preload
