// Waiting: a futex word, a polite spin. Any thread, any context.
#pragma once

#include <linux/futex.h>
#include <time.h>

#include <atomic>
#include <cstdint>

#include "runtime/os/injection.h"
#include "runtime/os/system_call.h"

#ifdef PNODE_STEPPED
#include PNODE_STEPPED
#endif

namespace pnode::os {

// Sleeps while `word` is `value`, at most `wait_ns` (0: for ever). Spurious returns happen: callers loop.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t value,
                       std::uint64_t wait_ns = 0) noexcept {
    if (injected(Call::wait) != 0) return;
    const timespec limit{static_cast<time_t>(wait_ns / 1'000'000'000),
                         static_cast<long>(wait_ns % 1'000'000'000)};
    system_call(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, wait_ns != 0 ? &limit : nullptr, nullptr, 0);
}

inline void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
    system_call(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

inline std::uint64_t now_ns() noexcept {
    timespec now;
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

// Of the calling thread.
inline std::uint64_t thread_cpu_ns() noexcept {
    timespec spent;
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return static_cast<std::uint64_t>(spent.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(spent.tv_nsec);
}

// At most a second.
inline void sleep_ns(long wait_ns) noexcept {
    const timespec nap{0, wait_ns};
    system_call(SYS_nanosleep, &nap, nullptr);
}

// A wait for something that another running thread finishes in microseconds: pauses, then yields, then
// sleeps, so that an owner that was preempted (or has a lower real-time priority) gets the processor.
#ifdef PNODE_STEPPED
using Backoff = interleaving::SteppedBackoff;
#else
class Backoff {
  public:
    void wait() noexcept {
        ++rounds_;
        if (rounds_ < 64) {
            __builtin_ia32_pause();
        } else if (rounds_ < 4096) {
            system_call(SYS_sched_yield);
        } else {
            sleep_ns(100'000);
        }
    }
    std::uint64_t rounds() const noexcept { return rounds_; }

  private:
    std::uint64_t rounds_ = 0;
};
#endif

}  // namespace pnode::os
