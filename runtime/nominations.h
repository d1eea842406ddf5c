// Pages that somebody asked to have near soon, and how many of them may be brought a second.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "cxl/spin_lock.h"

namespace pnode {

// A bounded ring. What does not fit is dropped: a nomination is a hint. Entries are not trusted.
//
// Thread rule: add() by any thread; take() by one at a time.
class Nominations {
  public:
    static constexpr std::uint64_t capacity = 1024;

    // False: dropped.
    bool add(std::uint64_t page) noexcept {
        std::atomic<std::uint64_t>& slot = slots_[head_.load(std::memory_order_relaxed) % capacity];
        std::uint64_t empty = 0;
        if (!slot.compare_exchange_strong(empty, page + 1, std::memory_order_release,
                                          std::memory_order_relaxed))
            return false;
        head_.fetch_add(1, std::memory_order_release);
        return true;
    }
    // False: none.
    bool take(std::uint64_t* page) noexcept {
        const std::uint64_t entry = slots_[tail_ % capacity].exchange(0, std::memory_order_acquire);
        if (entry == 0) return false;
        ++tail_;
        *page = entry - 1;
        return true;
    }
    bool is_empty() const noexcept { return slots_[tail_ % capacity].load(std::memory_order_relaxed) == 0; }

  private:
    std::array<std::atomic<std::uint64_t>, capacity> slots_{};  // a page plus one; 0 is empty
    std::atomic<std::uint64_t> head_{0};
    std::uint64_t tail_ = 0;
};

// So many a second, and never more than `burst` at once. Time is given, so that its arithmetic can be tested.
//
// Thread rule: set_rate() by any thread, take() by one at a time.
class TokenBucket {
  public:
    static constexpr std::uint64_t default_per_second = 65536;  // pages: 256 MiB
    static constexpr std::uint64_t burst_ns = 10'000'000;       // of the rate

    void set_rate(std::uint64_t per_second) noexcept {
        per_second_.store(per_second, std::memory_order_relaxed);
    }
    std::uint64_t rate() const noexcept { return per_second_.load(std::memory_order_relaxed); }

    bool take(std::uint64_t now_ns) noexcept {
        const std::uint64_t rate = this->rate();
        if (rate == 0) return false;
        const std::uint64_t cost_ns = std::max<std::uint64_t>(1'000'000'000 / rate, 1);
        // `paid_ns_` is the moment up to which time has been spent.
        const std::uint64_t burst = std::max(burst_ns, cost_ns);
        if (now_ns > burst) paid_ns_ = std::max(paid_ns_, now_ns - burst);
        if (paid_ns_ + cost_ns > now_ns) return false;
        paid_ns_ += cost_ns;
        return true;
    }

  private:
    std::atomic<std::uint64_t> per_second_{default_per_second};
    std::uint64_t paid_ns_ = 0;
};

}  // namespace pnode
