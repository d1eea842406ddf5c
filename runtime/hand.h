// The evictor's hand goes round the heap, and passes over a page as often as its level says (levels.h).
//
// Where all that was passed over in a round is to be passed over still, nothing of it leaves in the next ones
// either, until the page with the least left does. They are made at once: where few pages may leave at all,
// and all of them are in use, thirty rounds would be made for each of them.
//
// Thread rule: whoever holds the hand (Heap::hand_taken).
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/lanes.h"
#include "runtime/levels.h"

namespace pnode {

class Hand {
  public:
    std::uint64_t page = 0;      // it looks at this one next
    unsigned found_nothing = 0;  // so many times, until just now

    // Looks at a page that may leave. Is it to be passed over, once more or as often as there are rounds in
    // one? `skip` is how often still, before and after.
    bool passes_over(unsigned* skip) noexcept {
        ++seen_;
        if (*skip < rounds_) return false;
        *skip -= rounds_;
        left_min_ = std::min(left_min_, *skip);
        return true;
    }
    // `next` is past what it has looked at; at the heap's end it begins again: true.
    bool pass_to(std::uint64_t next, std::uint64_t page_count) noexcept {
        page = next < page_count ? next : 0;
        if (page == 0) begin_round();
        return page == 0;
    }

    // Little of what is near may leave: the other pages did not compress, or are pinned. A batch would be all
    // that is in use, and come back at once: no more is taken than must be.
    bool is_tight() const noexcept { return is_tight_; }

    // Where it is and what it goes by, for whoever compares states: of heaps of less than 64 pages.
    std::uint64_t state() const noexcept {
        return (((page * 64 + seen_) * 64 + left_min_) * 64 + rounds_) * 2 + (is_tight_ ? 1 : 0);
    }

  private:
    static constexpr unsigned none = skip_max + 1;
    void begin_round() noexcept {
        rounds_ = left_min_ == none ? 1 : left_min_ + 1;
        // Not this way and that at every round: where all leave that may, a round sees nearly twice as many
        // as are there at a time.
        is_tight_ = seen_ < (is_tight_ ? 4 * batch_pages : batch_pages + batch_pages / 2);
        left_min_ = none;
        seen_ = 0;
    }

    unsigned rounds_ = 1;  // that this one is
    // In this round:
    std::uint64_t seen_ = 0;
    unsigned left_min_ = none;
    bool is_tight_ = false;
};

}  // namespace pnode
