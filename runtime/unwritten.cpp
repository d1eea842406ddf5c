#include "runtime/unwritten.h"

#include <algorithm>
#include <utility>

#include "runtime/holds.h"

namespace pnode {
namespace {

// Of pages, one after the other: neighbours are one range.
class Ranges {
  public:
    explicit Ranges(EvictLane& lane) noexcept : ranges_(lane.ranges) {}
    void add(std::byte* page) noexcept {
        if (count_ != 0 && end() == page) {
            ranges_[count_ - 1].iov_len += page_bytes;
        } else {
            ranges_[count_++] = {page, page_bytes};
        }
    }
    const iovec* data() const noexcept { return ranges_; }
    unsigned count() const noexcept { return count_; }

  private:
    std::byte* end() const noexcept {
        return static_cast<std::byte*>(ranges_[count_ - 1].iov_base) + ranges_[count_ - 1].iov_len;
    }
    iovec* ranges_;
    unsigned count_ = 0;
};

// The caller owns the pages; those of which `stays` says so are near again, its answer their word.
template <class Stays>
void let_stay(Heap& heap, EvictLane& lane, Stays stays) noexcept {
    unsigned kept = 0;
    for (unsigned index = 0; index < lane.unwritten_count; ++index) {
        const UnwrittenPage out = lane.unwritten[index];
        const PageWord word = stays(out);
        if (word.state() == PageState::near) {
            heap.word(out.page).publish(word);
        } else {
            lane.unwritten[kept++] = out;
        }
    }
    lane.unwritten_count = kept;
}

// What was written to, released or taken out by another meanwhile is not what it was: its word says so. What
// is held stays (let_held_stay in take_out.cpp).
void own_unwritten(Heap& heap, EvictLane& lane) noexcept {
    unsigned owned = 0;
    for (unsigned index = 0; index < lane.unwritten_count; ++index) {
        const UnwrittenPage out = lane.unwritten[index];
        if (heap.word(out.page).make_busy(out.word)) lane.unwritten[owned++] = out;
    }
    lane.unwritten_count = owned;
    if (!any_holds()) return;
    hold_fence();
    let_stay(heap, lane, [&](const UnwrittenPage& out) {
        return is_page_held(heap, out.page) ? out.word.with_skip(std::max(out.word.skip(), 1u)) : PageWord();
    });
}

// Nothing can be lost: we own them, so a write that comes meanwhile faults (they are write-protected) and
// waits for the word, or comes after and finds the page absent; no thread holds them for the kernel; and the
// kernel's own write to one, before, would have needed a page that is not protected. What the program locked,
// unseen by us, stays.
void drop_in_place(Heap& heap, EvictLane& lane) noexcept {
    Ranges ranges(lane);
    for (unsigned index = 0; index < lane.unwritten_count; ++index)
        ranges.add(heap.address_of(lane.unwritten[index].page));
    if (os::drop_ranges(ranges.data(), ranges.count())) return;
    let_stay(heap, lane, [&](const UnwrittenPage& out) {
        if (os::is_locked(heap.address_of(out.page))) return refused_pinned(heap, out.word);
        os::drop_pages(heap.address_of(out.page), page_bytes);
        return PageWord();
    });
}

}  // namespace

bool is_page_held(const Heap& heap, std::uint64_t page) noexcept {
    return is_held(reinterpret_cast<std::uint64_t>(heap.base) / page_bytes + page);
}

PageWord refused_pinned(Heap& heap, PageWord word) noexcept {
    constexpr unsigned sweeps = 7;
    heap.statistics.refused_pinned.add();
    return word.with_skip(std::max(word.skip(), sweeps));
}

void stage_unwritten(Heap& heap, EvictLane& lane) noexcept {
    unsigned staged[batch_pages] = {};
    unsigned count = 0;
    Ranges ranges(lane);
    for (unsigned index = 0; index < lane.out_count; ++index) {
        if (!is_unwritten(heap, lane.out[index].word)) continue;
        // Dropped behind our back: the copy would wait for a handler, and that for us.
        if (heap.engine != Engine::in_line && !os::is_present(heap.address_of(lane.out[index].page)))
            continue;
        ranges.add(heap.address_of(lane.out[index].page));
        staged[count++] = index;
    }
    if (count == 0) return;
    count = static_cast<unsigned>(
        os::read_ranges(lane.copies, count * page_bytes, ranges.data(), ranges.count()) / page_bytes);
    heap.statistics.evictions_in_place.add(count);
    heap.statistics.limbo_pages.add(count);
    for (unsigned copied = 0; copied < count; ++copied) {
        OutgoingPage& out = lane.out[staged[copied]];
        out.contents = lane.copies + copied * page_bytes;
        out.in_place = true;
        heap.word(out.page).publish(
            out.word.with(PageState::limbo).with_slot(lane.first_slot + staged[copied]).with_in_place(true));
    }
}

void leave_unwritten(Heap& heap, EvictLane& lane, const UnwrittenPage& page) noexcept {
    lane.unwritten[lane.unwritten_count++] = page;
    heap.word(page.page).publish(page.word);
}

unsigned drop_unwritten(Heap& heap, EvictLane& lane) noexcept {
    own_unwritten(heap, lane);
    if (lane.unwritten_count != 0) drop_in_place(heap, lane);
    const unsigned count = std::exchange(lane.unwritten_count, 0);
    if (count == 0) return 0;
    std::uint64_t kept_bytes = 0;
    unsigned unchanged = 0;
    unsigned only_read = 0;
    for (unsigned index = 0; index < count; ++index) {
        const UnwrittenPage& out = lane.unwritten[index];
        kept_bytes += heap.far.bytes(out.word).size();
        unchanged += out.is_new ? 0 : 1;
        only_read += out.is_new && out.protected_late ? 0 : 1;
    }
    // Counted first: whoever brings a page near again counts it back.
    heap.statistics.kept_blob_bytes.subtract(kept_bytes);
    heap.statistics.far_pages.add(count);
    for (unsigned index = 0; index < count; ++index) {
        const UnwrittenPage& out = lane.unwritten[index];
        const PageWord word = out.word.with_write_protected(false).with_written(out.was_written);
        heap.word(out.page).publish(word.with(PageState::far).with_stamp(heap.epoch()));
    }
    heap.statistics.demotions.add(count);
    heap.statistics.demotions_unchanged.add(unchanged);
    heap.kept_outcomes.unchanged(only_read);
    heap.recompressor.something_far();
    return count;
}

}  // namespace pnode
