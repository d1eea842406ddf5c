// Blocks every signal but SIGBUS (the inline engine's own) of the calling thread for a scope in which it owns
// pages or locks: an application's handler that ran there and faulted would wait for a fault handler that
// waits for this thread.
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pnode::os {

class SignalsBlocked {
  public:
    // rt_sigprocmask(2) directly: the kernel's 64-bit set, glibc's own two signals included.
    SignalsBlocked() noexcept {
        const unsigned long all = ~(1UL << (SIGBUS - 1));
        ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before_, sizeof before_);
    }
    ~SignalsBlocked() { ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof before_); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  private:
    unsigned long before_ = 0;
};

}  // namespace pnode::os
