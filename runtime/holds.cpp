#include "runtime/holds.h"

#include <algorithm>

#include "runtime/heap.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {

constinit std::atomic<std::uint64_t> Hold::lowest{~std::uint64_t{0}};
constinit std::atomic<std::uint64_t> Hold::highest{0};
ThreadHolds hold_threads[hold_threads_max];
constinit std::atomic<std::uint32_t> hold_threads_end{0};

namespace {

thread_local ThreadHolds* mine __attribute__((tls_model("initial-exec"))) = nullptr;

// Null when all are taken: then pages are brought near, and only an EFAULT tells that one left again.
ThreadHolds* take_slot() noexcept {
    for (std::uint32_t index = 0; index < hold_threads_max; ++index) {
        ThreadHolds& thread = hold_threads[index];
        std::uint32_t none = 0;
        if (thread.owner.load(std::memory_order_relaxed) != 0 ||
            !thread.owner.compare_exchange_strong(none, 1))
            continue;
        std::uint32_t end = hold_threads_end.load();
        while (end <= index && !hold_threads_end.compare_exchange_weak(end, index + 1)) {
        }
        return &thread;
    }
    return nullptr;
}

bool is_accessible(const Heap& heap, std::uint64_t page) noexcept {
    if (!heap.traits.any()) return true;
    const std::uint8_t traits = heap.traits[page];
    return (traits & (PageTraits::reserved | PageTraits::handed_out)) == 0 &&
           (PageTraits::protection_of(traits) & PROT_READ) != 0;
}

bool is_untracked(Heap& heap, std::uint64_t chunk) noexcept {
    os::Backoff backoff;
    while (heap.chunks.state(chunk) == ChunkState::tracking) backoff.wait();
    return heap.chunks.state(chunk) == ChunkState::untracked;
}

// Near, for certain as long as it is written down. Was it absent before?
bool bring_page_near(Heap& heap, std::uint64_t page) noexcept {
    bool absent = false;
    for (os::Backoff backoff;;) {
        const PageState state = heap.word(page).load().state();
        if (state == PageState::near || state == PageState::poisoned) return absent;
        if (state == PageState::fresh && !is_accessible(heap, page)) return absent;
        if (state == PageState::busy) {
            backoff.wait();
            continue;
        }
        const os::SignalsBlocked signals;
        const Serving serving(heap);
        LentResolveLane lane(heap.resolve_lanes);
        resolve(heap, page, FaultKind::asked, *lane);
        make_room(heap, Evicting::handler);
        absent = true;
    }
}

std::uint64_t bring_range_near(std::uint64_t first, std::uint64_t end) noexcept {
    std::uint64_t absent = 0;
    for (std::uint64_t at = first; at < end;) {
        Heap* heap = heap_at(at * page_bytes);
        if (heap == nullptr || heap->engine == Engine::thread) {
            ++at;
            continue;
        }
        const std::uint64_t page = heap->page_at(at * page_bytes);
        const std::uint64_t chunk = heap->chunk_of(page);
        const std::uint64_t stop = std::min(end, at - page + (chunk + 1) * heap->chunk_pages);
        if (!is_untracked(*heap, chunk)) {
            for (std::uint64_t here = at; here < stop; ++here)
                absent += bring_page_near(*heap, page + (here - at)) ? 1 : 0;
        }
        at = stop;
    }
    return absent;
}

}  // namespace

void Hold::widen(std::uint64_t address, std::uint64_t bytes) noexcept {
    if (address < lowest.load()) lowest.store(address);
    if (address + bytes > highest.load()) highest.store(address + bytes);
}

void Hold::enter() noexcept {
    if (mine == nullptr) mine = take_slot();
    if (mine == nullptr) return;
    std::uint32_t depth = mine->depth.load(std::memory_order_relaxed);
    if (depth == hold_frames_max) depth = 0;  // left behind, every one of them
    thread_ = mine;
    frame_ = depth;
    thread_->frames[frame_].count.store(0, std::memory_order_relaxed);
    thread_->depth.store(depth + 1, std::memory_order_release);
}

// Frames further in were left behind: whoever made them is not running any more.
void Hold::let_go() noexcept {
    thread_->depth.store(frame_, std::memory_order_release);
}

// The pages of [address, address + bytes) that may be managed; `bytes` is whatever the program said.
Hold::Pages Hold::pages_of(std::uint64_t address, std::uint64_t bytes) noexcept {
    const std::uint64_t first = address / page_bytes;
    const std::uint64_t end =
        address + bytes < address ? ~std::uint64_t{0} / page_bytes : (address + bytes - 1) / page_bytes + 1;
    return {std::max(first, lowest.load(std::memory_order_relaxed) / page_bytes),
            std::min(end, highest.load(std::memory_order_relaxed) / page_bytes)};
}

std::uint64_t Hold::bring_near(std::uint64_t address, std::uint64_t bytes) noexcept {
    if (bytes == 0) return 0;
    const Pages pages = pages_of(address, bytes);
    return bring_range_near(pages.first, pages.end);
}

std::uint64_t Hold::add_managed(std::uint64_t address, std::uint64_t bytes) noexcept {
    const auto [from, to] = pages_of(address, bytes);
    if (from >= to) return 0;
    if (thread_ == nullptr) enter();
    if (thread_ != nullptr) {
        HoldFrame& frame = thread_->frames[frame_];
        const std::uint32_t count = frame.count.load(std::memory_order_relaxed);
        // One range too many joins the last one: more is held than was meant, never less.
        const std::uint32_t at = count < held_ranges_max ? count : held_ranges_max - 1;
        HeldRange& range = frame.ranges[at];
        const bool joins = count == held_ranges_max;
        range.first.store(joins ? std::min(from, range.first.load(std::memory_order_relaxed)) : from,
                          std::memory_order_relaxed);
        range.end.store(joins ? std::max(to, range.end.load(std::memory_order_relaxed)) : to,
                        std::memory_order_relaxed);
        frame.count.store(at + 1);
        // Pairs with the fence between an evictor's busy word and is_held().
        hold_fence();
    }
    return bring_range_near(from, to);
}

std::uint64_t Hold::look_again() noexcept {
    if (thread_ == nullptr) return 0;
    std::uint64_t absent = 0;
    HoldFrame& frame = thread_->frames[frame_];
    const std::uint32_t count = frame.count.load(std::memory_order_relaxed);
    for (std::uint32_t at = 0; at < count; ++at)
        absent += bring_range_near(frame.ranges[at].first.load(std::memory_order_relaxed),
                                   frame.ranges[at].end.load(std::memory_order_relaxed));
    return absent;
}

bool any_holds() noexcept {
    return hold_threads_end.load(std::memory_order_relaxed) != 0;
}

bool is_held(std::uint64_t absolute_page) noexcept {
    bool held = false;
    for_each_held(absolute_page, absolute_page + 1, [&](std::uint64_t, std::uint64_t) { held = true; });
    return held;
}

void holds_end_thread() noexcept {
    if (mine == nullptr) return;
    mine->depth.store(0);
    mine->owner.store(0);
    mine = nullptr;
}

void holds_after_fork_in_child() noexcept {
    const std::uint32_t threads = hold_threads_end.load();
    for (std::uint32_t index = 0; index < threads; ++index) {
        if (&hold_threads[index] == mine) continue;
        hold_threads[index].depth.store(0);
        hold_threads[index].owner.store(0);
    }
}

}  // namespace pnode
