// Which pages leave: the hand goes round the heap, past pages that are warm (levels.h), and takes a batch.
#include <algorithm>

#include "runtime/eviction.h"
#include "runtime/under_our_feet.h"

namespace pnode {
namespace {

constexpr unsigned scan_pages_max = os::stepped ? 2 : 8192;     // words looked at for one batch
constexpr unsigned scan_pages_enough = os::stepped ? 1 : 1024;  // ... once something was found

// It did not compress, and not much has left since: four times what is near. Where hardly anything else is
// near the hand comes round with every few pages that leave: tried at each of its turns, such pages would
// cost more than all others. But they may have been written to since: if there is nothing else, however warm,
// they are tried.
bool is_hopeless(const Heap& heap, PageWord word) noexcept {
    constexpr unsigned hopeless_epochs = 32;
    return word.incompressible() && heap.hand_found_nothing <= skip_max &&
           (heap.epoch() - word.stamp()) % stamps < hopeless_epochs;
}

// Looks at one page under the hand: takes it, or passes over it once more.
void consider(Heap& heap, EvictLane& lane, std::uint64_t page) noexcept {
    const PageWord word = heap.word(page).load();
    if (word.state() != PageState::near || word.pinned() || is_under_our_feet(heap, page)) return;
    if (is_hopeless(heap, word)) return;
    if (word.skip() != 0) {
        heap.word(page).exchange(word, word.with_skip(word.skip() - 1));
    } else {
        take(heap, lane, page, word);
    }
}

// Whoever waits for the hand owns no page, and its holder waits for no fault, so handlers may wait too; but a
// handler within the limit has better things to do.
bool take_hand(Heap& heap, Evicting who) noexcept {
    for (os::Backoff backoff; heap.hand_taken.exchange(true, std::memory_order_acquire); backoff.wait()) {
        if (who == Evicting::handler && !heap.near.past_limit()) return false;
    }
    return true;
}

// Pages of blobs under lease go first (leased_pages.h), if they are still what they were.
void pick_leased(Heap& heap, EvictLane& lane) noexcept {
    while (!is_full(heap, lane)) {
        const std::uint64_t page = heap.leased_pages.take();
        if (page == LeasedPages::none) return;
        const PageWord word = heap.word(page).load();
        if (word.state() == PageState::near && word.place() != cxl::no_blob &&
            word.store() != heap.far.own_store())
            consider(heap, lane, page);
    }
}

// At the first page of a group (near_map.h): is nothing of it near, and has it been told so? The hand's
// holder asks.
bool is_group_away(Heap& heap, std::uint64_t first) noexcept {
    if (first % NearMap::group_pages != 0) return false;
    if (!heap.near_map.may_be_near(first)) return true;
    return heap.near_map.clear_if(first, [&] {
        const std::uint64_t end = std::min(first + NearMap::group_pages, heap.page_count);
        for (std::uint64_t page = first; page < end; ++page) {
            const PageState state = heap.word(page).load_in_order().state();
            if (state != PageState::fresh && state != PageState::far && state != PageState::poisoned)
                return false;
        }
        return true;
    });
}

bool has_pages_to_take(Heap& heap, std::uint64_t chunk) noexcept {
    return heap.chunks.allocated_pages(chunk) != 0 && track_chunk(heap, chunk);
}

// Until a batch is full or enough was looked at.
void move_hand(Heap& heap, EvictLane& lane) noexcept {
    unsigned looked_at = 0;
    std::uint64_t chunks_passed = 0;
    const std::uint64_t chunks = (heap.page_count + heap.chunk_pages - 1) / heap.chunk_pages;
    std::uint64_t usable_chunk = ~std::uint64_t{0};  // asked for each chunk, not for each page
    while (!is_full(heap, lane) && chunks_passed <= chunks &&
           looked_at < (!lane.is_empty() ? scan_pages_enough : scan_pages_max)) {
        const std::uint64_t chunk = heap.chunk_of(heap.hand);
        const std::uint64_t end = heap.end_of_chunk(chunk);
        if (chunk != usable_chunk && !has_pages_to_take(heap, chunk)) {
            heap.hand = end;
            ++chunks_passed;
        } else if (is_group_away(heap, heap.hand)) {
            heap.hand = heap.near_map.next(heap.hand, end);
            chunks_passed += heap.hand == end ? 1 : 0;
            ++looked_at;
        } else {
            usable_chunk = chunk;
            consider(heap, lane, heap.hand++);
            ++looked_at;
        }
        if (heap.hand >= heap.page_count) heap.hand = 0;
    }
    heap.hand_found_nothing = lane.is_empty() ? heap.hand_found_nothing + 1 : 0;
}

// In a forked child what is not leased leaves last: only when what is on its way out already will not do.
bool leased_pages_will_do(Heap& heap) noexcept {
    return heap.far.own_store() != 0 &&
           heap.near.pages() <= heap.near.hard_pages() + heap.statistics.limbo_pages.value();
}

}  // namespace

bool take(const Heap& heap, EvictLane& lane, std::uint64_t page, PageWord word) noexcept {
    if (has_its_blob(heap, word)) {
        lane.unwritten[lane.unwritten_count++] = UnwrittenPage{.page = page, .word = word};
        return true;
    }
    if (!heap.word(page).make_busy(word)) return false;
    lane.out[lane.out_count++] = OutgoingPage{.page = page, .word = word};
    return true;
}

// Unwritten pages cost next to nothing but their one flush of TLBs: so many go at once, where the heap is not
// small.
bool is_full(const Heap& heap, const EvictLane& lane) noexcept {
    const std::uint64_t unwritten_max =
        std::clamp<std::uint64_t>(heap.near.hard_pages() / 32, batch_pages, EvictLane::unwritten_max);
    return lane.out_count == batch_pages || lane.unwritten_count >= unwritten_max;
}

void pick(Heap& heap, EvictLane& lane, Evicting who) noexcept {
    if (!take_hand(heap, who)) return;
    pick_leased(heap, lane);
    if (lane.is_empty() && !leased_pages_will_do(heap)) move_hand(heap, lane);
    heap.hand_taken.store(false, std::memory_order_release);
}

}  // namespace pnode
