// The operations gate: fork and close must find nobody in the middle of anything.
//
// Thread rule: pass() by any thread with signals blocked; close()/open() by one thread at a time. The two
// counters are sequentially consistent: a passer counts itself, then looks whether the gate is shut; a closer
// shuts it, then looks whether anybody is counted; so one of them sees the other.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/os/wait.h"

namespace pnode {

class OperationsGate {
  public:
    void enter() noexcept {
        for (;;) {
            inside_.fetch_add(1);
            const std::uint32_t shut = shut_.load();
            if (shut == 0) return;
            inside_.fetch_sub(1);
            os::futex_wait(shut_, shut, 100'000'000);
        }
    }
    void leave() noexcept { inside_.fetch_sub(1, std::memory_order_release); }

    void shut_and_wait() noexcept {
        shut_.store(1);
        os::Backoff backoff;
        while (inside_.load() != 0) backoff.wait();
    }
    void open() noexcept {
        shut_.store(0);
        os::futex_wake_all(shut_);
    }
    // In a forked child: whoever was counted is not there.
    void reset() noexcept {
        inside_.store(0);
        shut_.store(0);
    }

  private:
    std::atomic<std::int32_t> inside_{0};
    std::atomic<std::uint32_t> shut_{0};
};

class Inside {
  public:
    explicit Inside(OperationsGate& gate) noexcept : gate_(gate) { gate_.enter(); }
    ~Inside() { gate_.leave(); }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

  private:
    OperationsGate& gate_;
};

}  // namespace pnode
