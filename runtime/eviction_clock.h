// What "soon" is measured in: how much was taken out. An epoch is an eighth of the near pages' evictions, of
// as many as may be near while it lasts: a limit may change, with a total it does so all the time, and what
// is past is not to be counted anew by it.
//
// Thread rule: any thread, any context.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace pnode {

class EvictionClock {
  public:
    unsigned epoch() const noexcept { return epoch_of(now()); }
    // Different whenever something was taken out since.
    std::uint64_t now() const noexcept { return now_.load(std::memory_order_relaxed); }
    // So many pages were taken out. True where an epoch ended with them.
    bool count(std::uint64_t pages, std::uint64_t near_pages_max) noexcept {
        const std::uint64_t epoch_pages = std::clamp<std::uint64_t>(near_pages_max / 8, 32, rest_mask);
        std::uint64_t before = now(), after = 0;
        do {
            const std::uint64_t pages_now = (before & rest_mask) + pages;
            after = at(epoch_of(before) + pages_now / epoch_pages, pages_now % epoch_pages);
        } while (!now_.compare_exchange_weak(before, after, std::memory_order_relaxed));
        return epoch_of(after) != epoch_of(before);
    }
    // As if so much had been taken out.
    void advance(unsigned epochs) noexcept {
        now_.fetch_add(std::uint64_t{epochs} << rest_bits, std::memory_order_relaxed);
    }

  private:
    static constexpr unsigned rest_bits = 32;
    static constexpr std::uint64_t rest_mask = (std::uint64_t{1} << rest_bits) - 1;
    static constexpr unsigned epoch_of(std::uint64_t now) { return static_cast<unsigned>(now >> rest_bits); }
    static constexpr std::uint64_t at(std::uint64_t epoch, std::uint64_t pages) {
        return epoch << rest_bits | pages;
    }
    std::atomic<std::uint64_t> now_{0};  // epochs, and the pages since the last began
};

}  // namespace pnode
