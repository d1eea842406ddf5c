// What becomes of far pages that come near: they leave unchanged, or are written to, at once or later. Where
// many are written to, to protect them from it first is a fault for nothing.
//
// Thread rule: any thread, any context. A hint: what two threads note at once may count once.
#pragma once

#include <atomic>
#include <cstdint>

namespace pnode {

class KeptOutcomes {
  public:
    void unchanged(std::uint64_t pages = 1) noexcept {
        for (std::uint64_t page = 0; page < pages; ++page) move_towards(whole);
    }
    void changed() noexcept { move_towards(0); }
    // Four of five, lately: what a page costs that is written to after all, a second fault, is less than what
    // the others save (promote.cpp, should_protect). Measured: docs/performance.md.
    bool pays() const noexcept { return share_.load(std::memory_order_relaxed) >= whole / 5 * 4; }

  private:
    static constexpr std::int32_t whole = 1 << 16;
    static constexpr std::int32_t lately = 256;  // pages
    void move_towards(std::int32_t where) noexcept {
        const std::int32_t share = share_.load(std::memory_order_relaxed);
        share_.store(share + (where - share) / lately, std::memory_order_relaxed);
    }
    std::atomic<std::int32_t> share_{whole};  // of unchanged ones
};

}  // namespace pnode
