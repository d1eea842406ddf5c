// Out of the program's sight: UFFDIO_MOVE takes runs of neighbours into limbo, which keeps their bytes. Where
// the kernel has no MOVE, or refuses because the page is read-only, the page goes into limbo *in place*,
// write-protected: reads go on, the first write takes it back.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "runtime/eviction.h"
#include "runtime/holds.h"

namespace pnode {
namespace {

void put_back_near(Heap& heap, OutgoingPage& out, unsigned skip) noexcept {
    heap.word(out.page).publish(out.word.with_skip(std::max(out.word.skip(), skip)));
    out.contents = nullptr;
}

void refuse_pinned(Heap& heap, OutgoingPage& out) noexcept {
    put_back_near(heap, out, refused_pinned(heap, out.word).skip());
}

void enter_limbo(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    OutgoingPage& out = lane.out[index];
    out.contents = lane.staging + index * page_bytes;
    out.word = out.word.with_write_protected(false);  // should it come back
    heap.statistics.limbo_pages.add();
    heap.word(out.page).publish(out.word.with(PageState::limbo).with_slot(lane.first_slot + index));
}

// The page is not there: the application dropped it behind our back. Its word catches up.
void take_out_absent(Heap& heap, OutgoingPage& out) noexcept {
    drop_kept(heap, out.word);
    heap.word(out.page).publish(PageWord());
    heap.near.discharge(1);
    out.contents = nullptr;
}

// The application keeps reading the page; what is compressed is a copy, made while nobody can write to it or
// release it, so that the evictor never touches a page that is not its own. The slot names the evictor:
// another may have had the page in limbo since, and only the last may claim it.
void enter_limbo_in_place(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    OutgoingPage& out = lane.out[index];
    std::byte* const address = heap.address_of(out.page);
    std::byte* const copy = lane.staging + index * page_bytes;
    if (os::is_locked(address)) return refuse_pinned(heap, out);
    if (os::uffd_write_protect(heap.uffd.fd, address, page_bytes, true) != 0)
        return put_back_near(heap, out, skip_max);
    out.word = out.word.with_write_protected(false);  // it is ours now, whatever it was
    if (!os::uffd_is_occupied(heap.uffd.fd, address, heap.uffd_mode())) return take_out_absent(heap, out);
    std::size_t done = 0;
    if (os::uffd_copy(heap.uffd.fd, copy, address, page_bytes, &done) != 0) {
        os::uffd_write_protect(heap.uffd.fd, address, page_bytes, false);
        return put_back_near(heap, out, skip_max);
    }
    out.contents = copy;
    out.in_place = true;
    heap.statistics.evictions_in_place.add();
    heap.statistics.limbo_pages.add();
    heap.word(out.page).publish(
        out.word.with(PageState::limbo).with_slot(lane.first_slot + index).with_in_place(true));
}

// MOVE said EBUSY. After a fork, whoever made it (a bare clone(2) tells nobody), pages are not exclusive,
// while the child lives and when it is gone (FACTS.md), until they are written to: for a run that is one
// call, which copies what is still shared, and does nothing to a page that is pinned. How many pages from
// out[from] on it made exclusive; of those that are there, swapped out or not, and may be written to, for on
// others the caller, who owns them, would wait for itself.
unsigned make_exclusive(const Heap& heap, const EvictLane& lane, unsigned from, unsigned count) noexcept {
    unsigned char occupied[batch_pages] = {};
    std::byte* const first = heap.address_of(lane.out[from].page);
    if (os::find_occupied(heap.page_map, first, count * page_bytes, occupied) != 0) return 0;
    unsigned ready = 0;
    while (ready < count && (occupied[ready] & 1) != 0 && !lane.out[from + ready].word.write_protected())
        ++ready;
    return ready != 0 && os::populate(first, ready * page_bytes, os::Populate::write) == 0 ? ready : 0;
}

// MOVE wants equal protection at both ends. What may be read can leave in place; what may not stays near. A
// page of staging's own protection was refused for another reason: the program has it locked.
bool is_otherwise_protected(Heap& heap, std::uint64_t page) noexcept {
    const int protection = PageTraits::protection_of(heap.traits[page]);
    return (protection & PROT_READ) != 0 && protection != (PROT_READ | PROT_WRITE) &&
           heap.uffd.has(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
}

// What a thread holds for a system call (holds.h) stays; the words are busy already, so whoever writes a page
// down from here on waits for it.
void let_held_stay(Heap& heap, EvictLane& lane) noexcept {
    if (!any_holds()) return;
    hold_fence();
    unsigned kept = 0;
    for (unsigned index = 0; index < lane.out_count; ++index) {
        if (is_page_held(heap, lane.out[index].page)) {
            put_back_near(heap, lane.out[index], 1);
        } else {
            lane.out[kept++] = lane.out[index];
        }
    }
    lane.out_count = kept;
}

// MOVE did not count the page: it may have moved all the same (userfaultfd.h). Staging is empty between
// batches: what is there now is the page itself, unless that is where it was. Where mincore(2) fails, staging
// is believed: put back as near the page would be lost.
bool is_moved(const Heap& heap, const EvictLane& lane, unsigned index) noexcept {
    unsigned char present = 0;
    os::find_present(heap.address_of(lane.out[index].page), page_bytes, &present);
    return (present & 1) == 0 && os::uffd_is_occupied(heap.uffd.fd, lane.staging + index * page_bytes,
                                                      UFFDIO_REGISTER_MODE_MISSING);
}

// One run of neighbours, out[from] .. out[from + count).
void move_out(Heap& heap, EvictLane& lane, unsigned from, unsigned count) noexcept {
    unsigned retries = 0;
    unsigned piece_max = batch_pages;
    unsigned exclusive_end = from;
    while (count != 0) {
        std::size_t done = 0;
        const unsigned piece = std::min(count, piece_max);
        const int error = os::uffd_move(heap.uffd.fd, lane.staging + from * page_bytes,
                                        heap.address_of(lane.out[from].page), piece * page_bytes, &done);
        const auto moved = static_cast<unsigned>(done / page_bytes);
        for (unsigned index = from; index < from + moved; ++index) enter_limbo(heap, lane, index);
        from += moved;
        count -= moved;
        if (error == 0 || count == 0) continue;
        if (error == EBUSY && from >= exclusive_end) {
            exclusive_end = from + make_exclusive(heap, lane, from, count);
            if (exclusive_end != from) continue;
        }
        if (error == EAGAIN && ++retries < move_retries_max) continue;
        if (error == EINVAL && piece > 1) {
            piece_max = 1;  // not all of the run has the same protection
            continue;
        }
        if (is_moved(heap, lane, from)) {
            enter_limbo(heap, lane, from);
        } else if (error == ENOENT) {
            take_out_absent(heap, lane.out[from]);
        } else if (error == EINVAL && is_otherwise_protected(heap, lane.out[from].page)) {
            enter_limbo_in_place(heap, lane, from);
        } else {
            refuse_pinned(heap, lane.out[from]);
        }
        ++from;
        --count;
    }
}

// How many neighbours from out[from] on are still to be taken out.
unsigned run_at(const EvictLane& lane, unsigned from) noexcept {
    unsigned count = 0;
    while (from + count < lane.out_count && lane.out[from + count].contents == nullptr &&
           lane.out[from + count].page == lane.out[from].page + count)
        ++count;
    return count;
}

}  // namespace

void take_out(Heap& heap, EvictLane& lane) noexcept {
    let_held_stay(heap, lane);
    protect_spans(heap, lane);
    stage_unwritten(heap, lane);
    for (unsigned from = 0; from < lane.out_count;) {
        unsigned count = run_at(lane, from);
        if (count != 0 && heap.uffd.has(UFFD_FEATURE_MOVE)) {
            move_out(heap, lane, from, count);
        } else if (count != 0) {
            count = 1;
            enter_limbo_in_place(heap, lane, from);
        }
        from += std::max(count, 1u);
    }
}

}  // namespace pnode
