// The two signals that are ours and the program's at once: SIGBUS (the inline engine's faults) and SIGSYS
// (the shield's dispatched calls). The kernel has our handlers; what the program asked for is kept here and
// is carried out when such a signal is not ours.
//
// Thread rule: any thread, any context.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstdint>

#include "cxl/spin_lock.h"

namespace pnode::os {

// As rt_sigaction(2) takes it, which is not libc's struct sigaction.
struct SignalAction {
    void (*handler)(int, siginfo_t*, void*) = nullptr;  // null: SIG_DFL
    unsigned long flags = 0;
    void (*restorer)() = nullptr;
    unsigned long mask = 0;

    bool is_ignore() const noexcept { return reinterpret_cast<std::uintptr_t>(handler) == 1; }
    bool is_default() const noexcept { return handler == nullptr; }
};

// What the program asked for, where the kernel was told something else. Readers wait for nobody: a signal may
// come, or a process be forked, in the middle of a change. Those who change take turns, with signals blocked
// (change).
class KeptAction {
  public:
    SignalAction read() const noexcept;
    void write(const SignalAction& action) noexcept;  // by who has the lock
    // In a forked child: whoever had the lock is not there, and has changed it or not.
    void after_fork_in_child() noexcept { lock.unlock(); }

    cxl::SpinLock lock;

  private:
    struct Words {
        std::atomic<std::uint64_t> handler{0}, flags{0}, restorer{0}, mask{0};
    };
    // The one that counts is words_[generation_ % 2]; the other is written to.
    Words words_[2];
    std::atomic<std::uint32_t> generation_{0};
};

// Bits of a signal mask, the thread's own: which of the two the program has blocked, and which of these were
// sent meanwhile. The kernel has them open always: it would end a process that faults with SIGBUS blocked.
extern thread_local unsigned long signals_blocked_in_name __attribute__((tls_model("initial-exec")));
extern thread_local unsigned long signals_pending_in_name __attribute__((tls_model("initial-exec")));

// What is shared with a child of vfork() until it is another program: which of the two its own calls block is
// not the parent's mask. Before the call; and whenever a handler of ours begins.
void remember_signals_for_vfork() noexcept;
void recall_signals_after_vfork() noexcept;

// 0 or an errno. Our handler for SIGBUS or SIGSYS, on the alternate stack if there is one, with `mask`
// blocked; what the program had becomes the kept action. Returns from it by a restorer of our own.
int take_signal(int signal, void (*handler)(int, siginfo_t*, void*), unsigned long mask) noexcept;
bool is_taken(int signal) noexcept;

// The program's sigaction(2) for a taken signal.
SignalAction program_action(int signal) noexcept;
void set_program_action(int signal, const SignalAction& action) noexcept;
// What the kernel is to have for it in a process whose handlers clone3(2) cleared (CLONE_CLEAR_SIGHAND):
// taken, with a handler of ours that tells so. The record, in memory that the process may share with its
// parent, does not count there.
SignalAction action_when_cleared(int signal) noexcept;
void signal_actions_after_fork_in_child() noexcept;

// rt_sigaction(2) itself: as the kernel gives it.
long set_kernel_action(int signal, const SignalAction* next, SignalAction* former) noexcept;
// The same for a handler of ours, which returns by a restorer of our own.
SignalAction action_of_ours(void (*handler)(int, siginfo_t*, void*), unsigned long flags,
                            unsigned long mask) noexcept;

// The rest of a handler of ours: the signal was not ours, the program gets it as it asked for. May not return
// (siglongjmp, a cancelled thread): the caller holds nothing.
void pass_on(int signal, siginfo_t* info, void* context) noexcept;
// How the program's handler is called, where it is not by a plain call; `blocked` while it runs.
using Deliver = void (*)(int signal, const siginfo_t& info, void* context, const SignalAction& action,
                         unsigned long blocked) noexcept;
// May it be called where that context was interrupted? What was sent waits until it may.
using MayDeliver = bool (*)(const void* context) noexcept;
void deliver_by(Deliver deliver, MayDeliver may) noexcept;
// Bits of a signal mask, the thread's own: what waits. The handlers of taken signals send it again when they
// are done, and so does whoever returns from another handler of ours to the program, as the last it does.
extern thread_local volatile unsigned long signals_waiting __attribute__((tls_model("initial-exec")));
void send_waiting_signals(const void* context) noexcept;

// Where our handlers return to: rt_sigreturn(2), from our own text.
extern "C" [[gnu::visibility("hidden")]] void pnode_signal_return();

}  // namespace pnode::os
