// Handing out: pages of buffers become somebody else's: of who maps something else there, or watches them
// with a userfaultfd of its own. What was watched is not watched any more, and every word says fresh, which
// means nothing then.
//
// Contents that are left are left as an application saw them: what it had touched is in place, what it never
// touched is absent. Other threads may access the pages meanwhile: what they find is what the heap, or the
// kernel by itself, makes of them, which is the same.

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>

#include "runtime/heap.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {
namespace {

constexpr unsigned batch_pages_max = os::stepped ? 2 : 64;

constinit std::atomic<std::uint64_t> times_handed_out{0};

// Pages that are owned, from `first` on: each was near, and can be written to, or was never touched.
struct OwnedPages {
    std::uint64_t first = 0;
    unsigned count = 0;
    PageWord words[batch_pages_max] = {};
};

bool is_in_place(PageWord word) noexcept {
    return word.state() == PageState::near || (word.state() == PageState::fresh && !word.is_emptied());
}

// Somebody was quicker: 0, or what the call would have said.
int refusal(const Heap& heap, std::uint64_t page, PageWord word) noexcept {
    if ((heap.traits[page] & PageTraits::handed_out) != 0) return EINVAL;
    if (word.state() == PageState::poisoned) return EIO;
    return word.pinned() ? EBUSY : 0;
}

// The first page, whatever it takes, or an errno. Nothing else is owned yet.
int own_first(Heap& heap, OwnedPages& owned, unsigned run, ResolveLane& lane) noexcept {
    for (os::Backoff backoff;;) {
        const PageWord word = heap.word(owned.first).load();
        if (word.state() == PageState::busy) {
            backoff.wait();
        } else if (const int error = refusal(heap, owned.first, word)) {
            return error;
        } else if (!is_in_place(word)) {
            resolve(heap, owned.first, FaultKind::asked, lane, run);
        } else if (heap.word(owned.first).make_busy(word)) {
            owned.words[owned.count++] = word;
            return 0;
        }
    }
}

// The next ones, as far as that costs no waiting.
void own_next(Heap& heap, OwnedPages& owned, unsigned pages_max) noexcept {
    while (owned.count < pages_max) {
        AtomicPageWord& at = heap.word(owned.first + owned.count);
        const PageWord word = at.load();
        if (!is_in_place(word) || refusal(heap, owned.first + owned.count, word) != 0) return;
        if (!at.make_busy(word)) return;
        owned.words[owned.count++] = word;
    }
}

void make_all_writable(Heap& heap, OwnedPages& owned) noexcept {
    for (unsigned index = 0; index < owned.count; ++index) {
        PageWord& word = owned.words[index];
        if (word.state() == PageState::near && word.write_protected())
            word = unprotected(heap, owned.first + index, word);
    }
}

// 0 or an errno, and then nothing has changed.
int unwatch(Heap& heap, const OwnedPages& owned) noexcept {
    const int error = unwatch_pages(heap, owned.first, owned.count);
    if (error == 0) return 0;
    if (const int worse = watch_pages(heap, owned.first, owned.count)) {
        report("a range can neither be watched nor left (errno %d): the process cannot go on", worse);
        std::abort();
    }
    return error;
}

// Kept blobs and charges go; what the words say means nothing any more.
void forget(Heap& heap, OwnedPages& owned) noexcept {
    std::uint64_t far = 0;  // none is
    for (unsigned index = 0; index < owned.count; ++index) {
        heap.near.discharge(drop_contents(heap, owned.words[index], &far));
        owned.words[index] = PageWord();
    }
}

void give_back(Heap& heap, const OwnedPages& owned) noexcept {
    for (unsigned index = 0; index < owned.count; ++index)
        heap.word(owned.first + index).publish(owned.words[index]);
}

}  // namespace

std::uint64_t hand_outs() noexcept {
    return times_handed_out.load(std::memory_order_relaxed);
}

// ENOMEM: what it is when the kernel would not have them watched again.
int Heap::mark_handed_out(std::uint64_t first, std::uint64_t pages) noexcept {
    // Before any trait says so, which who reads it relies on.
    times_handed_out.fetch_add(1, std::memory_order_relaxed);
    const std::lock_guard lock(span_lock);
    traits.for_each(first, pages, PageTraits::reserved, 0,
                    [&](std::uint64_t at, std::uint64_t count) { charge_spans(at, count, -1); });
    traits.set(first, pages, 0xff, PageTraits::handed_out | PageTraits::reserved);
    return ENOMEM;
}

// Of one tracked chunk. The words are published when the traits tell what they mean: whoever wins one of them
// later sees that it is not ours (resolve).
int Heap::hand_out_tracked(std::uint64_t first, std::uint64_t pages, ResolveLane& lane) noexcept {
    while (pages != 0) {
        OwnedPages owned{.first = first};
        const auto batch = static_cast<unsigned>(std::min<std::uint64_t>(pages, batch_pages_max));
        if (const int error = own_first(*this, owned, std::min(batch, ResolveLane::pages_max), lane))
            return error;
        own_next(*this, owned, batch);
        make_all_writable(*this, owned);
        const int error = unwatch(*this, owned);
        if (error == 0) mark_handed_out(first, owned.count);
        if (error == 0) forget(*this, owned);
        give_back(*this, owned);
        if (error != 0) return error;
        first += owned.count;
        pages -= owned.count;
        make_room(*this, Evicting::other);  // what came near with the first
    }
    return 0;
}

// From the moment this returns nobody here touches, moves or watches the pages.
int Heap::hand_out(std::uint64_t first, std::uint64_t pages, Contents contents) noexcept {
    const os::SignalsBlocked signals;
    const Inside inside(operations);
    if (any_pinned(*this, first, pages)) return EBUSY;
    if (contents == Contents::dropped) release(*this, first, pages);
    const LentResolveLane lane(resolve_lanes);
    for (const std::uint64_t end = first + pages; first < end;) {
        const std::uint64_t piece = std::min(end, end_of_chunk(chunk_of(first))) - first;
        const ChunksClaimed claimed(*this, first, piece);
        int error = 0;
        if (claimed.any_tracked()) {
            error = hand_out_tracked(first, piece, *lane);
        } else {
            mark_handed_out(first, piece);
        }
        if (error != 0) return error;
        first += piece;
    }
    return 0;
}

}  // namespace pnode
