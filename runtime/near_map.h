// Where may pages be near? One bit for each group of 64 pages, so that in a heap whose pages are few and far
// between, or far as a rule, the evictor's hand finds those that it may take.
//
// A bit is set by whoever is about to make a page near, after it has won the page; it is cleared by the
// holder of the hand, which has seen that all of the group is away, and looks once more when it has cleared
// it. Either it sees the page busy then, or the page's owner sees the bit clear: both are sequentially
// consistent, as is the exchange of a page word (page_word.h).
//
// Beside it, a bit that stays: has a page of the group ever been near? What never was is nothing to look at.
//
// Thread rule: any thread, any context; clear() the holder of the hand.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>

#include "runtime/os/atomic.h"
#include "runtime/os/memory.h"

namespace pnode {

class NearMap {
  public:
    static constexpr std::uint64_t group_pages = 64;

    int init(std::uint64_t pages) noexcept {
        words_ = (pages / group_pages + 1 + 63) / 64;
        const std::uint64_t bytes = words_ * sizeof(os::Atomic<std::uint64_t>);
        if (int error = memory_.map((2 * bytes + 4095) & ~std::uint64_t{4095})) return error;
        near_ = reinterpret_cast<os::Atomic<std::uint64_t>*>(memory_.address());
        ever_ = near_ + words_;
        return 0;
    }

    // The caller owns the busy page.
    void mark(std::uint64_t page) noexcept {
        const std::uint64_t group = page / group_pages;
        if ((near_[group / 64].load(std::memory_order_seq_cst) & bit(group)) != 0) return;
        ever_[group / 64].fetch_or(bit(group), std::memory_order_seq_cst);
        near_[group / 64].fetch_or(bit(group), std::memory_order_seq_cst);
    }
    // `is_away` looks at the group's words (load_in_order); it is asked again when the bit is clear.
    template <class IsAway>
    bool clear_if(std::uint64_t page, IsAway is_away) noexcept {
        if (!is_away()) return false;
        const std::uint64_t group = page / group_pages;
        near_[group / 64].fetch_and(~bit(group), std::memory_order_seq_cst);
        if (is_away()) return true;
        near_[group / 64].fetch_or(bit(group), std::memory_order_seq_cst);
        return false;
    }

    bool may_be_near(std::uint64_t page) const noexcept { return next(page, page + 1) == page; }
    // The first page from `page` on, below `end`, that may be near (may ever have been); `end` if none is.
    std::uint64_t next(std::uint64_t page, std::uint64_t end) const noexcept {
        return find(near_, page, end);
    }
    std::uint64_t next_ever(std::uint64_t page, std::uint64_t end) const noexcept {
        return find(ever_, page, end);
    }

  private:
    static constexpr std::uint64_t bit(std::uint64_t group) { return std::uint64_t{1} << (group % 64); }
    static std::uint64_t find(const os::Atomic<std::uint64_t>* words, std::uint64_t page,
                              std::uint64_t end) noexcept {
        const std::uint64_t groups_end = (end + group_pages - 1) / group_pages;
        for (std::uint64_t group = page / group_pages; group < groups_end; group = (group / 64 + 1) * 64) {
            const std::uint64_t bits = words[group / 64].load(std::memory_order_relaxed) >> (group % 64);
            if (bits == 0) continue;
            const std::uint64_t found = (group + static_cast<unsigned>(std::countr_zero(bits))) * group_pages;
            return std::min(std::max(found, page), end);
        }
        return end;
    }

    os::Atomic<std::uint64_t>* near_ = nullptr;
    os::Atomic<std::uint64_t>* ever_ = nullptr;
    std::uint64_t words_ = 0;
    os::Mapping memory_;
};

}  // namespace pnode
