#include "runtime/read_ahead.h"

#include "runtime/heap.h"
#include "runtime/promote.h"

namespace pnode {
namespace {

constexpr std::uint64_t turn_ns = 100'000'000;  // then the evictor looks after the rest of its work

bool is_needed_elsewhere(const Heap& heap) noexcept {
    return heap.stop.load(std::memory_order_relaxed) || heap.engine_change.is_asked_for() ||
           heap.near.past_limit();
}

}  // namespace

bool ReadAhead::help(Heap& heap) noexcept {
    if (unpack(window_.load(std::memory_order_relaxed)).left == 0) return false;
    helping_.store(true);
    const std::uint64_t begun_ns = os::now_ns();
    for (std::uint64_t now_ns = begun_ns; now_ns - begun_ns < turn_ns && !is_needed_elsewhere(heap);) {
        const Run run = wait_for_run();
        if (run.pages != 0) bring(heap, run);
        const std::uint64_t spent_ns = os::now_ns() - now_ns;
        now_ns += spent_ns;
        if (run.pages != 0) {
            patience_ns_ = std::min(patience_ns_ + 2 * spent_ns, patience_ns_max);
        } else if (patience_ns_ > spent_ns) {
            patience_ns_ -= spent_ns;
        } else {
            patience_ns_ = patience_ns_min;
            break;
        }
    }
    readers_.store(0, std::memory_order_relaxed);
    helping_.store(false);
    return true;
}

// Looks for a moment, and lets others have the processor if they want it.
ReadAhead::Run ReadAhead::wait_for_run() noexcept {
    constexpr unsigned looks = 64;  // the last of them is after a sched_yield()
    os::Backoff backoff;
    for (unsigned look = 0; look < looks; ++look) {
        if (const Run run = take(); run.pages != 0) return run;
        backoff.wait();
    }
    return take();
}

void ReadAhead::bring(Heap& heap, const Run& run) noexcept {
    if (answers_.fetch_add(1, std::memory_order_relaxed) >= answers_good)
        mute_ns_.store(mute_ns_min, std::memory_order_relaxed);
    const Inside inside(heap.operations);
    const LentResolveLane lane(heap.resolve_lanes);
    bring_ahead(heap, run, *lane);
    make_room(heap, Evicting::other);
}

}  // namespace pnode
