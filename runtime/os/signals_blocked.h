// Blocks every signal of the calling thread for a scope in which it owns pages or locks: an application's handler
// that ran there and faulted would wait for a fault handler that waits for this thread. All but SIGBUS, which is the
// inline engine's, and SIGSYS, which is the shield's: the kernel ends a process that gets one of them while it is
// blocked.
#pragma once

#include <signal.h>

#include "runtime/os/system_call.h"

namespace pnode::os {

// The kernel's 64-bit set, glibc's own two signals included.
inline constexpr unsigned long signals_left_open = (1UL << (SIGBUS - 1)) | (1UL << (SIGSYS - 1));

// What the thread had blocked.
inline unsigned long block_signals(unsigned long mask = ~signals_left_open) noexcept {
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
