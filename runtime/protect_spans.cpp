// Pages that were written to become such as were not since: the kernel write-protects a whole span of the
// heap by one call, with one flush of other processors' TLBs, where UFFDIO_MOVE has one for each run. What is
// to leave is copied, compressed and dropped from then on as unwritten.h does it.
//
// A span reaches from one page that leaves to another, and all pages between them are owned while the call
// lasts: nobody brings one near, or makes one writable, that the call would take from him. One that stays
// near is protected too, and its word says so: its next write faults once. Where that would be many the span
// ends.
//
// Only where the program pins what is written to past its page tables (PN_HEAP_PINNED_IO): a move is refused
// for what is pinned for DMA, but a page that is dropped where it is tells nothing of that.
#include "runtime/eviction.h"
#include "runtime/holds.h"
#include "runtime/under_our_feet.h"

namespace pnode {
namespace {

// A write to a page that stays costs a fault, less than a flush does: so many of them may lie between two
// that leave, and none that is passed over more often, which will be written to again. Measured:
// docs/performance.md.
constexpr unsigned staying_max = os::stepped ? 1 : 2;
constexpr unsigned staying_skip_max = os::stepped ? skip_max : 2;

class Span {
  public:
    Span(Heap& heap, EvictLane& lane, unsigned first) noexcept
        : heap_(heap), lane_(lane), first_(first), end_(first + 1) {}

    bool can_begin() const noexcept { return may_be_protected(lane_.out[first_].word); }
    void grow() noexcept {
        while (end_ < lane_.out_count && may_be_protected(lane_.out[end_].word) && own_all_before(end_))
            ++end_;
    }
    unsigned end() const noexcept { return end_; }

    // What leaves is unwritten then, and so is what stays, unless the kernel refuses. All but what leaves is
    // given back.
    void protect() noexcept {
        const std::uint64_t pages = page_of(end_ - 1) + 1 - page_of(first_);
        const int error = os::uffd_write_protect(heap_.uffd.fd, heap_.address_of(page_of(first_)),
                                                 pages * page_bytes, true);
        if (error != 0) unprotect();  // it may have come behind some
        for (unsigned index = first_; error == 0 && index < end_; ++index) {
            OutgoingPage& out = lane_.out[index];
            if (is_unwritten(heap_, out.word)) continue;
            out.protected_late = true;
            out.word = unwritten(out.word);
        }
        give_back_from(0, error == 0);
    }

  private:
    std::uint64_t page_of(unsigned index) const noexcept { return lane_.out[index].page; }
    bool is_near_and_written(PageWord word) const noexcept {
        return word.state() == PageState::near && !is_unwritten(heap_, word);
    }

    // Not what an ancestor's word or blob belongs to: that says nothing of this process's kernel.
    bool may_be_protected(PageWord word) const noexcept {
        if (word.place() != cxl::no_blob && word.store() != heap_.far.own_store()) return false;
        return is_unwritten(heap_, word) || !word.write_protected();
    }

    // The blob it kept, if any, may be outdated: its word goes on to say that it was written to.
    PageWord unwritten(PageWord word) const noexcept {
        if (word.place() != cxl::no_blob) return word.with_write_protected(true).with_written(true);
        const PageWord ours = word.with_blob(heap_.far.own_store(), cxl::no_blob).with_write_protected(true);
        return word.incompressible() ? ours.with_incompressible() : ours;
    }

    // All between out[index - 1] and out[index], or none of it.
    bool own_all_before(unsigned index) noexcept {
        const std::uint64_t first = page_of(index - 1) + 1;
        const std::uint64_t end = page_of(index);
        if (end < first || heap_.chunk_of(first) != heap_.chunk_of(end)) return false;
        if (end - first > EvictLane::between_max - count_) return false;
        const unsigned before = count_;
        unsigned staying = 0;
        for (std::uint64_t page = first; page < end; ++page) {
            const PageWord word = heap_.word(page).load();
            if (is_near_and_written(word)) staying += word.skip() > staying_skip_max ? staying_max + 1 : 1;
            if (staying > staying_max || !own(page, word)) return give_back_from(before, false);
        }
        return staying == 0 || !is_any_held(before) || give_back_from(before, false);
    }

    bool own(std::uint64_t page, PageWord word) noexcept {
        switch (word.state()) {
            case PageState::near:
                if (word.pinned() || !may_be_protected(word) || is_under_our_feet(heap_, page)) return false;
                break;
            case PageState::fresh:
                if ((heap_.traits[page] & PageTraits::handed_out) != 0) return false;
                break;
            case PageState::far:
                break;
            default:
                return false;
        }
        if (!heap_.word(page).make_busy(word)) return false;
        lane_.between[count_++] = {.page = page, .word = word};
        return true;
    }

    // Who holds a page for a system call has seen, or waits to see, that it may be written to.
    bool is_any_held(unsigned from) const noexcept {
        if (!any_holds()) return false;
        hold_fence();
        for (unsigned index = from; index < count_; ++index) {
            const BetweenPage& between = lane_.between[index];
            if (is_near_and_written(between.word) && is_page_held(heap_, between.page)) return true;
        }
        return false;
    }

    bool give_back_from(unsigned from, bool is_protected) noexcept {
        for (; count_ != from; --count_) {
            const BetweenPage& between = lane_.between[count_ - 1];
            const bool changes = is_protected && is_near_and_written(between.word);
            heap_.word(between.page)
                .publish(changes ? unwritten(between.word).with_written(true) : between.word);
        }
        return false;
    }

    void unprotect() noexcept {
        for (unsigned index = first_; index < end_; ++index) unprotect(page_of(index), lane_.out[index].word);
        for (unsigned index = 0; index < count_; ++index)
            unprotect(lane_.between[index].page, lane_.between[index].word);
    }
    void unprotect(std::uint64_t page, PageWord word) noexcept {
        if (is_near_and_written(word)) unprotected(heap_, page, word);
    }

    Heap& heap_;
    EvictLane& lane_;
    unsigned first_;  // of out: what leaves
    unsigned end_;
    unsigned count_ = 0;  // in lane.between: what is owned besides
};

}  // namespace

void protect_spans(Heap& heap, EvictLane& lane) noexcept {
    if (!heap.config.pins_io || !heap.uffd.has(UFFD_FEATURE_PAGEFAULT_FLAG_WP)) return;
    for (unsigned index = 0; index < lane.out_count;) {
        Span span(heap, lane, index);
        if (span.can_begin()) {
            span.grow();
            span.protect();
        }
        index = span.end();
    }
}

}  // namespace pnode
