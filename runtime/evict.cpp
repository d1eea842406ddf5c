// Taking pages out, a batch at a time, by the stages of eviction.h. DESIGN 5. Who calls: the evictor, whoever
// brought a page near past the hard mark, and pn_demote().
#include <cerrno>

#include "runtime/eviction.h"
#include "runtime/under_our_feet.h"

namespace pnode {
namespace {

// A taker-back may still be copying from our staging page: it is done when the page is no longer busy.
void wait_until_copied(Heap& heap, std::uint64_t page) noexcept {
    os::Backoff backoff;
    while (heap.word(page).load().state() == PageState::busy) backoff.wait();
}

// Now and then the evictor gives back what slabs became empty, though threads may make room themselves.
void count_evicted(Heap& heap, unsigned pages) noexcept {
    std::uint64_t near_pages = heap.near.hard_pages();
    if (heap.near.has_total())
        near_pages = KeepRule::near_pages_if_none_kept(heap.far.use(heap.statistics, heap.near), near_pages);
    if (heap.eviction_clock.count(pages, near_pages)) heap.near.wake_evictor();
}

// Takes the page if it is near. With an empty lane it waits, bounded, for a page in transit.
void add_if_near(Heap& heap, EvictLane& lane, std::uint64_t page) noexcept {
    if (is_under_our_feet(heap, page)) return;
    for (os::Backoff backoff; backoff.rounds() < 8192; backoff.wait()) {
        const PageWord word = heap.word(page).load();
        if (word.state() == PageState::near && word.pinned()) {
            heap.statistics.refused_pinned.add();
            return;
        }
        if (word.state() == PageState::near) {
            if (take(heap, lane, page, word)) return;
        } else if (word.state() != PageState::busy || !lane.is_empty()) {
            return;
        }
    }
}

}  // namespace

Cleared clear(Heap& heap, EvictLane& lane, Evicting who, unsigned fulls_max) noexcept {
    Cleared cleared;
    unsigned staged_end = 0;
    unsigned end = 0;
    if (who != Evicting::handler) encode_ahead(heap, lane);  // no fault waits for a device
    for (unsigned index = 0; index < lane.out_count; ++index) {
        OutgoingPage& out = lane.out[index];
        if (out.contents == nullptr) continue;
        const Away away = put_away(heap, lane, index, cleared.fulls < fulls_max);
        heap.statistics.limbo_pages.subtract(1);
        cleared.left += away == Away::far || away == Away::fresh ? 1 : 0;
        cleared.fulls += away == Away::no_room ? 1 : 0;
        end = index + 1;
        if (!is_copied(heap, out)) staged_end = end;
    }
    cleared.left += drop_unwritten(heap, lane);
    for (unsigned index = 0; index < end; ++index) wait_until_copied(heap, lane.out[index].page);
    if (staged_end != 0) os::drop_pages(lane.staging, staged_end * page_bytes);
    lane.out_count = 0;
    heap.near.discharge(cleared.left);
    count_evicted(heap, cleared.left);
    if (cleared.left != 0) heap.near.rested_well();
    return cleared;
}

void trim(Heap& heap) noexcept {
    heap.far.store()->trim();
    share_total(heap);
}

void share_total(Heap& heap) noexcept {
    if (heap.near.has_total()) heap.near.set_far((heap.far.physical_bytes() + page_bytes - 1) / page_bytes);
}

unsigned evict_batch(Heap& heap, EvictLane& lane, Evicting who) noexcept {
    lane.turns = 1;
    if (heap.near.is_resting()) return 0;
    pick(heap, lane, who);
    take_out(heap, lane);
    const Cleared cleared = clear(heap, lane, who, 1);
    share_total(heap);
    if (heap.far.keeps_too_much(heap.statistics, heap.near)) drop_kept_blobs(heap);
    if (cleared.left == 0 && cleared.fulls != 0) heap.near.rest();
    return cleared.left;
}

void make_room(Heap& heap, Evicting who) noexcept {
    // Enough for the hand to pass over warm pages as often as they may be passed over.
    constexpr unsigned fruitless_max = 64;
    for (unsigned fruitless = 0; heap.near.past_hard();) {
        if (heap.near.is_resting() || is_forking_here()) return;
        LentEvictLane lane(heap.evict_lanes);
        heap.statistics.evictions_direct.add();
        if (evict_batch(heap, *lane, who) != 0) continue;
        if (!heap.near.past_limit()) return;  // there is still some
        // Everything is pinned, incompressible or in use: looking again at each fault would find no more.
        if ((fruitless += lane->turns) < fruitless_max) continue;
        heap.near.rest();
        return heap.near.wake_evictor();  // which tries again afterwards
    }
}

int demote(Heap& heap, std::uint64_t first, std::uint64_t pages, std::uint64_t* done) noexcept {
    LentEvictLane lane(heap.evict_lanes);
    bool node_full = false;
    for (std::uint64_t page = first; page < first + pages;) {
        if (!track_chunk(heap, heap.chunk_of(page))) {
            ++page;
            continue;
        }
        for (; page < first + pages && !is_full(heap, *lane); ++page) {
            if (heap.chunks.state(heap.chunk_of(page)) != ChunkState::tracked) break;
            // A page that just came near may still be its handler's: wait for it, but never while owning
            // others.
            if (heap.word(page).load().state() == PageState::busy && !lane->is_empty()) break;
            add_if_near(heap, *lane, page);
        }
        take_out(heap, *lane);
        node_full |= clear(heap, *lane, Evicting::other, batch_pages).fulls != 0;
        share_total(heap);
        if (node_full && heap.far.is_nearly_full()) drop_kept_blobs(heap);
    }
    *done = 0;
    for (std::uint64_t page = first; page < first + pages; ++page) {
        if (heap.chunks.state(heap.chunk_of(page)) != ChunkState::tracked)
            continue;  // its words tell nothing
        os::Backoff backoff;
        PageState state = heap.word(page).load().state();
        for (; (state == PageState::busy || state == PageState::limbo) && backoff.rounds() < 4096;
             state = heap.word(page).load().state())
            backoff.wait();
        *done += state == PageState::far || state == PageState::fresh ? 1 : 0;
    }
    return node_full ? ENOSPC : 0;
}

}  // namespace pnode
