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
    return word.incompressible() && heap.hand.found_nothing <= skip_max &&
           (heap.epoch() - word.stamp()) % stamps < hopeless_epochs;
}

// Looks at one page under the hand: takes it, or passes over it once more.
void consider(Heap& heap, EvictLane& lane, std::uint64_t page) noexcept {
    const PageWord word = heap.word(page).load();
    if (word.state() != PageState::near || word.pinned() || is_under_our_feet(heap, page)) return;
    if (is_hopeless(heap, word)) return;
    unsigned skip = word.skip();
    if (heap.hand.passes_over(&skip)) {
        heap.word(page).exchange(word, word.with_skip(skip));
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

NearMap::Group look_at_group(Heap& heap, std::uint64_t first) noexcept {
    const std::uint64_t end = std::min(first + NearMap::group_pages, heap.page_count);
    NearMap::Group seen = NearMap::Group::away;
    for (std::uint64_t page = first; page < end; ++page) {
        const PageWord word = heap.word(page).load_in_order();
        const PageState state = word.state();
        if (state == PageState::fresh || state == PageState::far || state == PageState::poisoned) continue;
        if (state != PageState::near || !is_hopeless(heap, word)) return NearMap::Group::takeable;
        seen = NearMap::Group::idle;
    }
    return seen;
}

// At the first page of a group (near_map.h): is there nothing to take, and has the map been told so? The
// hand's holder asks.
bool is_group_idle(Heap& heap, std::uint64_t first) noexcept {
    if (first % NearMap::group_pages != 0) return false;
    return !heap.near_map.may_be_takeable(first) ||
           heap.near_map.clear_if_idle(first, [&] { return look_at_group(heap, first); });
}

// What did not compress may have been written to since, or long enough ago (is_hopeless).
void look_again_if_due(Heap& heap) noexcept {
    constexpr unsigned every_epochs = 8;
    const bool is_due = heap.epoch() - heap.looked_again >= every_epochs;
    if (!is_due && heap.hand.found_nothing <= skip_max) return;
    heap.looked_again = heap.epoch();
    heap.near_map.look_again();
}

bool has_pages_to_take(Heap& heap, std::uint64_t chunk) noexcept {
    return heap.chunks.allocated_pages(chunk) != 0 && track_chunk(heap, chunk);
}

// Where only little may leave a batch is what has to.
bool is_enough(const Heap& heap, const EvictLane& lane) noexcept {
    if (is_full(heap, lane)) return true;
    const std::uint64_t taken = lane.out_count + lane.unwritten_count;
    return taken != 0 && heap.near.is_tight() && taken + heap.near.hard_pages() >= heap.near.pages();
}

// Until there is a batch or enough was looked at.
void move_hand(Heap& heap, EvictLane& lane) noexcept {
    look_again_if_due(heap);
    Hand& hand = heap.hand;
    unsigned looked_at = 0;
    std::uint64_t passed = 0;
    bool is_anything_there = false;
    const auto pass_to = [&](std::uint64_t page) {
        passed += page - hand.page;
        if (hand.pass_to(page, heap.page_count)) heap.near.set_tight(hand.is_tight());
    };
    // Chunks are watched when the hand comes to them, and what is near in them is on the map then.
    const bool is_all_on_the_map = heap.chunks.all_are_tracked();
    std::uint64_t usable_chunk = ~std::uint64_t{0};  // asked for each chunk, not for each page
    while (!is_enough(heap, lane) && passed <= heap.page_count &&
           looked_at < (!lane.is_empty() ? scan_pages_enough : scan_pages_max)) {
        const std::uint64_t chunk = heap.chunk_of(hand.page);
        if (is_all_on_the_map && is_group_idle(heap, hand.page)) {
            pass_to(heap.near_map.next_takeable(hand.page, heap.page_count));
            ++looked_at;
        } else if (chunk != usable_chunk && !has_pages_to_take(heap, chunk)) {
            pass_to(heap.end_of_chunk(chunk));
        } else if (!is_all_on_the_map && is_group_idle(heap, hand.page)) {
            pass_to(heap.near_map.next_takeable(hand.page, heap.end_of_chunk(chunk)));
            ++looked_at;
        } else {
            usable_chunk = chunk;
            is_anything_there = true;
            consider(heap, lane, hand.page);
            pass_to(hand.page + 1);
            ++looked_at;
        }
    }
    constexpr unsigned turns_for_nothing = 8;
    lane.turns = is_anything_there ? 1 : turns_for_nothing;
    hand.found_nothing = lane.is_empty() ? hand.found_nothing + 1 : 0;
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
