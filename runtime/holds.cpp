#include "runtime/holds.h"

#include <algorithm>
#include <cerrno>

#include "runtime/heap.h"
#include "runtime/os/signals_blocked.h"

// Weak: before glibc 2.35 there is none.
extern "C" const std::ptrdiff_t __rseq_offset __attribute__((weak));

namespace pnode {

constinit std::atomic<std::uint64_t> Hold::lowest{~std::uint64_t{0}};
constinit std::atomic<std::uint64_t> Hold::highest{0};
ThreadHolds hold_threads[hold_threads_max];
constinit std::atomic<std::uint32_t> hold_threads_end{0};
constinit thread_local ThreadHolds* my_holds __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

bool is_gone(const ThreadHolds& ended) noexcept {
    const long there = os::system_call(SYS_tgkill, os::system_call(SYS_getpid), ended.number.load(), 0);
    return os::error_of(there) == ESRCH;
}

bool claim(ThreadHolds& thread, std::uint32_t from) noexcept {
    return thread.owner.load(std::memory_order_relaxed) == from &&
           thread.owner.compare_exchange_strong(from, ThreadHolds::changing);
}

void clear(ThreadHolds& thread) noexcept {
    thread.depth.store(0);
    thread.stack_top.store(0);
    thread.lasts.store(false);
    for (HeldRange& held : thread.lasting) held.end.store(0);
}

// It is `changing`; null when all are taken: then pages are brought near, and only an EFAULT tells that one
// left again.
ThreadHolds* take_slot() noexcept {
    for (std::uint32_t index = 0; index < hold_threads_max; ++index) {
        ThreadHolds& thread = hold_threads[index];
        if (!claim(thread, ThreadHolds::nobody)) {
            if (!claim(thread, ThreadHolds::a_thread_that_ended)) continue;
            if (!is_gone(thread)) {
                thread.owner.store(ThreadHolds::a_thread_that_ended);
                continue;
            }
        }
        clear(thread);
        std::uint32_t end = hold_threads_end.load();
        while (end <= index && !hold_threads_end.compare_exchange_weak(end, index + 1)) {
        }
        return &thread;
    }
    return nullptr;
}

// What the calling thread holds in; null: see take_slot().
ThreadHolds* slot_of_this_thread() noexcept {
    if (my_holds != nullptr) return my_holds;
    ThreadHolds* const slot = take_slot();
    if (slot == nullptr) return nullptr;
    const bool late = my_holds != nullptr;  // a signal's handler was here meanwhile
    slot->owner.store(late ? ThreadHolds::nobody : ThreadHolds::a_thread);
    if (!late) my_holds = slot;
    return my_holds;
}

// There was no shield before handler threads came, or they came later (change_engine.h): what no handler can
// serve is held still.
bool may_be_held(const Heap& heap) noexcept {
    return heap.engine != Engine::thread || heap.engine_change.is_made();
}

bool is_accessible(const Heap& heap, std::uint64_t page) noexcept {
    if (!heap.traits.any()) return true;
    const std::uint8_t traits = heap.traits[page];
    return (traits & (PageTraits::reserved | PageTraits::handed_out)) == 0 &&
           (PageTraits::protection_of(traits) & PROT_READ) != 0;
}

// Near, for certain as long as it is written down. Was it absent before?
bool bring_page_near(Heap& heap, std::uint64_t page) noexcept {
    bool absent = false;
    for (os::Backoff backoff;;) {
        const PageWord word = heap.word(page).load();
        const PageState state = word.state();
        if (state == PageState::near && word.write_protected()) {
            const os::SignalsBlocked signals;
            const Serving serving(heap);
            make_writable(heap, page);
            continue;
        }
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
    if (is_child_to_be()) return 0;
    for (std::uint64_t at = first; at < end;) {
        Heap* heap = heap_at(at * page_bytes);
        if (heap == nullptr || !may_be_held(*heap)) {
            ++at;
            continue;
        }
        const std::uint64_t page = heap->page_at(at * page_bytes);
        const std::uint64_t chunk = heap->chunk_of(page);
        const std::uint64_t stop = std::min(end, at - page + (chunk + 1) * heap->chunk_pages);
        if (heap->chunks.settled_state(chunk) == ChunkState::tracked) {
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
    if (slot_of_this_thread() == nullptr) return;
    std::uint32_t depth = my_holds->depth.load(std::memory_order_relaxed);
    if (depth == hold_frames_max) depth = 0;  // left behind, every one of them
    thread_ = my_holds;
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
    if (pages.first >= pages.end) return 0;
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

namespace {

bool is_written_down(std::uint64_t absolute_page) noexcept {
    bool held = false;
    for_each_held(absolute_page, absolute_page + 1, [&](std::uint64_t, std::uint64_t) { held = true; });
    return held;
}

// Was there any that the kernel is done with?
bool release_ended() noexcept {
    bool any = false;
    const std::uint32_t threads = hold_threads_end.load();
    for (std::uint32_t index = 0; index < threads; ++index) {
        ThreadHolds& thread = hold_threads[index];
        if (!claim(thread, ThreadHolds::a_thread_that_ended)) continue;
        const bool gone = is_gone(thread);
        if (gone) clear(thread);
        thread.owner.store(gone ? ThreadHolds::nobody : ThreadHolds::a_thread_that_ended);
        any |= gone;
    }
    return any;
}

}  // namespace

bool is_held(std::uint64_t absolute_page) noexcept {
    return is_written_down(absolute_page) && (!release_ended() || is_written_down(absolute_page));
}

namespace {

// `bytes` is not 0. The range is empty before it is another, so that nobody sees the start of one with the
// end of the other.
void set_lasting(ThreadHolds& thread, Lasting what, std::uint64_t address, std::uint64_t bytes) noexcept {
    HeldRange& range = thread.lasting[static_cast<unsigned>(what)];
    thread.lasts.store(true);
    range.end.store(0);
    range.first.store(address / page_bytes);
    range.end.store((address + bytes - 1) / page_bytes + 1);
}

// A slot of a start that failed has the same stack; it will do.
ThreadHolds* slot_for_stack(std::uint64_t stack_top) noexcept {
    const std::uint32_t threads = hold_threads_end.load();
    for (std::uint32_t index = 0; index < threads; ++index) {
        ThreadHolds& thread = hold_threads[index];
        if (thread.stack_top.load() == stack_top && claim(thread, ThreadHolds::a_thread_to_come))
            return &thread;
    }
    return take_slot();
}

}  // namespace

void hold_while_alive(Lasting what, std::uint64_t address, std::uint64_t bytes) noexcept {
    const bool managed = bytes != 0 && Hold::may_be_managed(address, bytes);
    if (!managed && my_holds == nullptr) return;
    if (slot_of_this_thread() != nullptr) {
        if (!managed) return my_holds->lasting[static_cast<unsigned>(what)].end.store(0);
        set_lasting(*my_holds, what, address, bytes);
        hold_fence();
    }
    if (managed) Hold::bring_near(address, bytes);
}

std::uint64_t end_of_storage(std::uint64_t thread_pointer) noexcept {
    constexpr std::uint64_t structure_bytes = 2304, rseq_bytes = 32;
    return thread_pointer + (&__rseq_offset != nullptr && __rseq_offset > 0
                                 ? static_cast<std::uint64_t>(__rseq_offset) + rseq_bytes
                                 : structure_bytes);
}

void hold_for_thread_to_come(const ThreadToCome& thread) noexcept {
    const std::uint64_t frames_at = thread.stack_top - first_frames_bytes;
    const bool has_storage = thread.thread_pointer - thread.stack_top < storage_bytes_max;
    const std::uint64_t frames_end = has_storage ? end_of_storage(thread.thread_pointer) : thread.stack_top;
    const std::uint64_t frames_bytes = frames_end - frames_at;
    const bool on_heap =
        thread.stack_top > first_frames_bytes && Hold::may_be_managed(frames_at, frames_bytes);
    const bool number_on_heap = thread.number_at != 0 && Hold::may_be_managed(thread.number_at, sizeof(int));
    if (!on_heap && !number_on_heap) return;
    if (ThreadHolds* const slot = slot_for_stack(thread.stack_top)) {
        slot->stack_top.store(thread.stack_top);
        if (on_heap) set_lasting(*slot, Lasting::first_frames, frames_at, frames_bytes);
        if (number_on_heap) set_lasting(*slot, Lasting::number, thread.number_at, sizeof(int));
        slot->owner.store(ThreadHolds::a_thread_to_come);
        hold_fence();
    }
    if (on_heap) Hold::bring_near(frames_at, frames_bytes);
    if (number_on_heap) Hold::bring_near(thread.number_at, sizeof(int));
}

// The nearest stack's end above: stacks lie side by side.
void take_over_holds(std::uint64_t stack_pointer) noexcept {
    if (my_holds != nullptr) return;
    ThreadHolds* found = nullptr;
    const std::uint32_t threads = hold_threads_end.load();
    for (std::uint32_t index = 0; index < threads; ++index) {
        ThreadHolds& thread = hold_threads[index];
        const std::uint64_t top = thread.stack_top.load();
        if (thread.owner.load() != ThreadHolds::a_thread_to_come || top < stack_pointer) continue;
        if (top - stack_pointer > first_frames_bytes) continue;
        if (found == nullptr || top < found->stack_top.load()) found = &thread;
    }
    if (found == nullptr || !claim(*found, ThreadHolds::a_thread_to_come)) return;
    my_holds = found;
    my_holds->stack_top.store(0);
    my_holds->owner.store(ThreadHolds::a_thread);
    const auto thread_pointer = reinterpret_cast<std::uint64_t>(__builtin_thread_pointer());
    if (thread_pointer - stack_pointer < storage_bytes_max)
        hold_while_alive(Lasting::storage, stack_pointer, end_of_storage(thread_pointer) - stack_pointer);
}

void holds_end_thread() noexcept {
    if (my_holds == nullptr) return;
    my_holds->number.store(static_cast<std::uint32_t>(os::system_call(SYS_gettid)));
    my_holds->owner.store(ThreadHolds::a_thread_that_ended);
    my_holds = nullptr;
}

void holds_after_fork_in_child() noexcept {
    const std::uint32_t threads = hold_threads_end.load();
    for (std::uint32_t index = 0; index < threads; ++index) {
        if (&hold_threads[index] == my_holds) continue;
        clear(hold_threads[index]);
        hold_threads[index].owner.store(ThreadHolds::nobody);
    }
}

}  // namespace pnode
