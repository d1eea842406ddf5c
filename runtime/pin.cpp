// Pins: a page that is near stays near until as many unpins. The count is in a side table, changed by the
// owner of the busy page.

#include <cerrno>

#include "runtime/heap.h"

namespace pnode {
namespace {

constexpr std::uint8_t pins_max = 255;

// Brings the page near and owns it; false: poisoned, or handed out meanwhile. A page in transit is waited
// for, not resolved: two that did so would take it from each other for ever.
bool own_near(Heap& heap, std::uint64_t page, ResolveLane& lane, PageWord* near_word) noexcept {
    for (os::Backoff backoff;;) {
        const PageWord word = heap.word(page).load();
        if (word.state() == PageState::busy) {
            backoff.wait();
            continue;
        }
        if (word.state() == PageState::poisoned) return false;
        if (word.state() == PageState::near) {
            if (!heap.word(page).make_busy(word)) continue;
            *near_word = word.write_protected() ? unprotected(heap, page, word) : word;
            return true;
        }
        if ((heap.traits[page] & PageTraits::handed_out) != 0) return false;
        resolve(heap, page, FaultKind::asked, lane);
    }
}

int pin_page(Heap& heap, std::uint64_t page, ResolveLane& lane) noexcept {
    PageWord word;
    if (!own_near(heap, page, lane, &word)) return EIO;
    std::atomic<std::uint8_t>& count = heap.pins[page];
    const std::uint8_t before = count.load(std::memory_order_relaxed);
    if (before != pins_max) count.store(static_cast<std::uint8_t>(before + 1), std::memory_order_relaxed);
    if (before == 0) heap.statistics.pinned_pages.add();
    heap.word(page).publish(word.with_pinned(true));
    return before == pins_max ? EAGAIN : 0;
}

bool unpin_page(Heap& heap, std::uint64_t page) noexcept {
    os::Backoff backoff;
    for (;;) {
        const PageWord word = heap.word(page).load();
        if (!word.pinned() && word.state() != PageState::busy) return false;
        if (word.state() == PageState::busy || !heap.word(page).make_busy(word)) {
            backoff.wait();
            continue;
        }
        std::atomic<std::uint8_t>& count = heap.pins[page];
        const auto left = static_cast<std::uint8_t>(count.load(std::memory_order_relaxed) - 1);
        count.store(left, std::memory_order_relaxed);
        if (left == 0) heap.statistics.pinned_pages.subtract(1);
        heap.word(page).publish(word.with_pinned(left != 0));
        return true;
    }
}

std::uint64_t unpinned_pages(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    std::uint64_t unpinned = 0;
    for (std::uint64_t page = first; page < first + pages; ++page)
        unpinned += heap.word(page).load().pinned() ? 0 : 1;
    return unpinned;
}

}  // namespace

int pin(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    if (heap.near.is_limited() &&
        heap.statistics.pinned_pages.value() + unpinned_pages(heap, first, pages) > heap.near.limit_pages())
        return ENOMEM;
    for (std::uint64_t chunk = heap.chunk_of(first); chunk <= heap.chunk_of(first + pages - 1); ++chunk) {
        if (!track_chunk(heap, chunk)) return ENOMEM;
    }
    LentResolveLane lane(heap.resolve_lanes);
    for (std::uint64_t page = first; page < first + pages; ++page) {
        if (const int error = pin_page(heap, page, *lane)) {
            for (std::uint64_t done = first; done < page; ++done) unpin_page(heap, done);
            return error;
        }
        make_room(heap, Evicting::other);
    }
    return 0;
}

int unpin(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    for (std::uint64_t page = first; page < first + pages; ++page) {
        if (!unpin_page(heap, page)) {
            // All or nothing here too: what was taken off goes back on.
            LentResolveLane lane(heap.resolve_lanes);
            for (std::uint64_t done = first; done < page; ++done) pin_page(heap, done, *lane);
            return EINVAL;
        }
    }
    heap.near.try_again();
    return 0;
}

bool any_pinned(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    for (std::uint64_t page = first; page < first + pages; ++page) {
        if (heap.chunks.state(heap.chunk_of(page)) == ChunkState::untracked) {
            page = (heap.chunk_of(page) + 1) * heap.chunk_pages - 1;  // pinning tracks
        } else if (heap.word(page).load().pinned()) {
            return true;
        }
    }
    return false;
}

}  // namespace pnode
