// The two signals that are ours and the program's at once: SIGBUS (the inline engine's faults) and SIGSYS
// (the shield's dispatched calls). The kernel has our handlers; what the program asked for is kept here and
// is carried out when such a signal is not ours.
//
// Thread rule: any thread, any context.
#pragma once

#include <signal.h>

#include <cstdint>

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

// Bits of a signal mask, the thread's own: which of the two the program has blocked, and which of these were
// sent meanwhile. The kernel has them open always: it would end a process that faults with SIGBUS blocked.
extern thread_local unsigned long signals_blocked_in_name __attribute__((tls_model("initial-exec")));
extern thread_local unsigned long signals_pending_in_name __attribute__((tls_model("initial-exec")));

// 0 or an errno. Our handler for SIGBUS or SIGSYS, on the alternate stack if there is one, with `mask`
// blocked; what the program had becomes the kept action. Returns from it by a restorer of our own.
int take_signal(int signal, void (*handler)(int, siginfo_t*, void*), unsigned long mask) noexcept;
bool is_taken(int signal) noexcept;

// The program's sigaction(2) for a taken signal.
SignalAction program_action(int signal) noexcept;
void set_program_action(int signal, const SignalAction& action) noexcept;

// The rest of a handler of ours: the signal was not ours, the program gets it as it asked for. May not return
// (siglongjmp, a cancelled thread): the caller holds nothing.
void pass_on(int signal, siginfo_t* info, void* context) noexcept;

// Where our handlers return to: rt_sigreturn(2), from our own text.
extern "C" [[gnu::visibility("hidden")]] void pnode_signal_return();

}  // namespace pnode::os
