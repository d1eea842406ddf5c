// Blocks every signal but two of the calling thread for a scope in which it owns pages or locks: an
// application's handler that ran there and faulted would wait for a fault handler that waits for this thread.
//
// Open stay SIGBUS, the inline engine's own, and the signal by which glibc's setuid(2) and its kin have each
// thread change its own credentials: the caller waits for all threads, ours too, with a lock of libc's held
// that a thread's start needs. Its handler is libc's and touches no memory of the program's.
#pragma once

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pnode::os {

inline constexpr int signal_of_setxid = 33;  // SIGSETXID, which glibc hides
inline constexpr unsigned long signals_to_block = ~(1UL << (SIGBUS - 1)) & ~(1UL << (signal_of_setxid - 1));

class SignalsBlocked {
  public:
    // rt_sigprocmask(2) directly: the kernel's 64-bit set, glibc's own two signals included.
    SignalsBlocked() noexcept {
        ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &signals_to_block, &before_, sizeof before_);
    }
    ~SignalsBlocked() { ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof before_); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  private:
    unsigned long before_ = 0;
};

}  // namespace pnode::os
