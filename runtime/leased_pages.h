// In a forked child: pages that came near lately out of a blob of an ancestor's, oldest first. They are the
// first to leave. Unchanged they are dropped for nothing, for the blob is under lease; and they are pages of
// the child alone, while what was near at the fork is shared with the parent: to take that out costs a
// compression and a blob, and frees no memory.
//
// The youngest are left alone: somebody is reading them. And it is a short memory, not a list of all: what is
// pushed out of it is left to the evictor's hand, and so is a page that came back soon after it left.
//
// Thread rule: add() by any thread, any context; take() by whoever has the hand; any() by anybody. Relaxed: a
// page number says nothing about the page, whose word does.
#pragma once

#include <atomic>
#include <cstdint>

namespace pnode {

class LeasedPages {
  public:
    static constexpr std::uint64_t none = ~std::uint64_t{0};

    void add(std::uint64_t page) noexcept {
        slots_[added_.fetch_add(1, std::memory_order_relaxed) % slots_max].store(page + 1,
                                                                                 std::memory_order_relaxed);
    }
    // `none` when there are only young ones.
    std::uint64_t take() noexcept {
        const std::uint64_t added = added_.load(std::memory_order_relaxed);
        std::uint64_t at = taken_.load(std::memory_order_relaxed);
        if (added - at > slots_max) at = added - slots_max;
        std::uint64_t page = 0;
        // Zero: its adder is not done yet, or another has overtaken it. It is not waited for.
        while (added - at > young && page == 0)
            page = slots_[at++ % slots_max].exchange(0, std::memory_order_relaxed);
        taken_.store(at, std::memory_order_relaxed);
        return page - 1;
    }
    // Is there one to take?
    bool any() const noexcept {
        return added_.load(std::memory_order_relaxed) - taken_.load(std::memory_order_relaxed) > young;
    }
    void clear() noexcept { taken_.store(added_.load(std::memory_order_relaxed), std::memory_order_relaxed); }

  private:
    static constexpr std::uint64_t slots_max = 4096;
    static constexpr std::uint64_t young = 32;
    std::atomic<std::uint64_t> slots_[slots_max] = {};
    std::atomic<std::uint64_t> added_{0};
    std::atomic<std::uint64_t> taken_{0};
};

}  // namespace pnode
