// Where may pages be near? One bit for each group of 64 pages, so that in a heap whose pages are few and far
// between, or far as a rule, the evictor's hand finds those that it may take.
//
// A bit is set by whoever is about to make a page near, after it has won the page; it is cleared by the
// holder of the hand, which has seen that all of the group is away, and looks once more when it has cleared
// it. Either it sees the page busy then, or the page's owner sees the bit clear: both are sequentially
// consistent, as is the exchange of a page word (page_word.h).
//
// Beside it in the same word, set and cleared together with it, one for the hand: may there be anything to
// take? Where all that is near did not compress the hand would come for nothing, until look_again() sets it
// wherever pages may be near.
//
// And a bit that stays: has a page of the group ever been near? What never was is nothing to look at.
//
// Thread rule: any thread, any context; clear_if_idle() and look_again() the holder of the hand.
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
        words_ = (pages / group_pages + 1 + groups - 1) / groups;
        const std::uint64_t bytes = words_ * sizeof(os::Atomic<std::uint64_t>);
        if (int error = memory_.map((2 * bytes + 4095) & ~std::uint64_t{4095})) return error;
        now_ = reinterpret_cast<os::Atomic<std::uint64_t>*>(memory_.address());
        ever_ = now_ + words_;
        return 0;
    }

    // The caller owns the busy page.
    void mark(std::uint64_t page) noexcept {
        const std::uint64_t group = page / group_pages;
        const std::uint64_t both = near_bit(group) | takeable_bit(group);
        if ((now_[group / groups].load(std::memory_order_seq_cst) & both) == both) return;
        ever_[group / groups].fetch_or(near_bit(group), std::memory_order_seq_cst);
        now_[group / groups].fetch_or(both, std::memory_order_seq_cst);
    }
    enum class Group : std::uint8_t {
        takeable,
        idle,  // what is near is not to be taken for now
        away   // none is near
    };
    // `look` looks at the group's words (load_in_order); once more when the bits are clear.
    template <class Look>
    bool clear_if_idle(std::uint64_t page, Look look) noexcept {
        const Group seen = look();
        if (seen == Group::takeable) return false;
        const std::uint64_t group = page / group_pages;
        const std::uint64_t bits = takeable_bit(group) | (seen == Group::away ? near_bit(group) : 0);
        now_[group / groups].fetch_and(~bits, std::memory_order_seq_cst);
        if (look() >= seen) return true;
        now_[group / groups].fetch_or(bits, std::memory_order_seq_cst);
        return false;
    }
    void look_again() noexcept {
        for (std::uint64_t word = 0; word < words_; ++word) {
            const std::uint64_t is_near = now_[word].load(std::memory_order_relaxed) & near_mask;
            if (is_near != 0) now_[word].fetch_or(is_near << groups, std::memory_order_relaxed);
        }
    }

    bool may_be_near(std::uint64_t page) const noexcept { return next(page, page + 1) == page; }
    bool may_be_takeable(std::uint64_t page) const noexcept { return next_takeable(page, page + 1) == page; }
    // The first page from `page` on, below `end`, that may be near (taken, may ever have been); `end` if none
    // is.
    std::uint64_t next(std::uint64_t page, std::uint64_t end) const noexcept {
        return find(now_, 0, page, end);
    }
    std::uint64_t next_takeable(std::uint64_t page, std::uint64_t end) const noexcept {
        return find(now_, groups, page, end);
    }
    std::uint64_t next_ever(std::uint64_t page, std::uint64_t end) const noexcept {
        return find(ever_, 0, page, end);
    }

  private:
    static constexpr unsigned groups = 32;  // in a word
    static constexpr std::uint64_t near_mask = (std::uint64_t{1} << groups) - 1;
    static constexpr std::uint64_t near_bit(std::uint64_t group) {
        return std::uint64_t{1} << (group % groups);
    }
    static constexpr std::uint64_t takeable_bit(std::uint64_t group) { return near_bit(group) << groups; }
    static std::uint64_t find(const os::Atomic<std::uint64_t>* words, unsigned shift, std::uint64_t page,
                              std::uint64_t end) noexcept {
        const std::uint64_t groups_end = (end + group_pages - 1) / group_pages;
        for (std::uint64_t group = page / group_pages; group < groups_end;
             group = (group / groups + 1) * groups) {
            const std::uint64_t word = words[group / groups].load(std::memory_order_relaxed);
            const std::uint64_t bits = ((word >> shift) & near_mask) >> (group % groups);
            if (bits == 0) continue;
            const std::uint64_t found = (group + static_cast<unsigned>(std::countr_zero(bits))) * group_pages;
            return std::min(std::max(found, page), end);
        }
        return end;
    }

    os::Atomic<std::uint64_t>* now_ = nullptr;
    os::Atomic<std::uint64_t>* ever_ = nullptr;
    std::uint64_t words_ = 0;
    os::Mapping memory_;
};

}  // namespace pnode
