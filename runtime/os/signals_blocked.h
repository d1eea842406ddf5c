// Blocks every signal but three of the calling thread for a scope in which it owns pages or locks: an
// application's handler that ran there and faulted would wait for a fault handler that waits for this thread.
//
// Open stay SIGBUS, the inline engine's own, and SIGSYS, the shield's: the kernel ends a process that gets
// one of them while it is blocked. And the signal by which glibc's setuid(2) and its kin have each thread
// change its own credentials: the caller waits for all threads, ours too, with a lock of libc's held that a
// thread's start needs. Its handler is libc's and touches no memory of the program's.
#pragma once

#include <signal.h>

#include "runtime/os/system_call.h"

namespace pnode::os {

// The kernel's 64-bit set, glibc's own two signals included.
inline constexpr unsigned long signals_left_open = (1UL << (SIGBUS - 1)) | (1UL << (SIGSYS - 1));
inline constexpr int signal_of_setxid = 33;  // SIGSETXID, which glibc hides
inline constexpr unsigned long signals_to_block = ~signals_left_open & ~(1UL << (signal_of_setxid - 1));

// What the thread had blocked.
inline unsigned long block_signals(unsigned long mask = signals_to_block) noexcept {
    unsigned long before = 0;
    system_call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, sizeof before);
    return before;
}

class SignalsBlocked {
  public:
    SignalsBlocked() noexcept : before_(block_signals()) {}
    ~SignalsBlocked() { block_signals(before_); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  private:
    const unsigned long before_;
};

}  // namespace pnode::os
