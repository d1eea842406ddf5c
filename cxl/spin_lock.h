// A spin lock of four bytes, for sections of a few dozen instructions.
//
// Thread rule: whoever can be interrupted by a signal handler that may want the same lock blocks signals
// first. It waits with `pause` and, after a bound, lets others run: the holder may have lost its CPU.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace pnode::cxl {

class SpinLock {
  public:
    void lock() noexcept {
        // Acquire pairs with the release in unlock().
        while (held_.exchange(1, std::memory_order_acquire) != 0) wait();
    }
    bool try_lock() noexcept { return held_.exchange(1, std::memory_order_acquire) == 0; }
    void unlock() noexcept { held_.store(0, std::memory_order_release); }

  private:
    void wait() const noexcept {
        int spins = 0;
        while (held_.load(std::memory_order_relaxed) != 0) {
            if (++spins < spins_before_yield) {
                pause();
            } else {
                sched_yield();
                spins = 0;
            }
        }
    }
    static void pause() noexcept {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    static constexpr int spins_before_yield = 128;
    std::atomic<std::uint32_t> held_{0};
};

}  // namespace pnode::cxl
