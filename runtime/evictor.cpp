// The evictor thread: keeps the near pages between the watermarks, and does what has to be done now and then.

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "runtime/heap.h"
#include "runtime/os/descriptors.h"
#include "runtime/stats_json.h"

namespace pnode {
namespace {

// A forked child takes out what is not leased (leased_pages.h) only past `hard`, and no more than it must.
bool may_evict(const Heap& heap) noexcept {
    return heap.far.own_store() == 0 || heap.leased_pages.any() || heap.near.past_hard();
}

// Where threads make room themselves it helps past the limit only (charge), and leaves the rest to them.
bool has_to_evict(const Heap& heap) noexcept {
    const bool due = heap.makes_room_itself() ? heap.near.past_limit() : heap.near.past_high();
    return due && may_evict(heap);
}

bool is_at_goal(const Heap& heap) noexcept {
    return heap.makes_room_itself() ? !heap.near.past_limit() : heap.near.pages() <= heap.near.low_pages();
}

// Down to the low watermark, or until nothing more can be done.
void evict_to_low(Heap& heap) noexcept {
    constexpr unsigned fruitless_max = 64;
    unsigned fruitless = 0;
    while (!is_at_goal(heap) && fruitless < fruitless_max && may_evict(heap) && !heap.near.is_resting() &&
           !heap.stop.load(std::memory_order_relaxed) && !heap.engine_change.is_asked_for()) {
        const Inside inside(heap.operations);
        LentEvictLane lane(heap.evict_lanes);
        fruitless = evict_batch(heap, *lane, Evicting::other) == 0 ? fruitless + lane->turns : 0;
    }
    if (fruitless >= fruitless_max) heap.near.rest();
}

void expire_leases(Heap& heap) noexcept {
    if (heap.leases.count() == 0) return;
    const Inside inside(heap.operations);
    heap.leases.expire(heap.far.node()->store());
}

// Inside: neither a fork nor validate() may see a slab half given back.
void trim_inside(Heap& heap) noexcept {
    const Inside inside(heap.operations);
    trim(heap);
}

void write_stats_if_due(Heap& heap) noexcept {
    char path[StatsFile::path_max];
    if (!heap.stats_file.take_due(os::now_ns(), path)) return;
    const std::unique_lock writing(heap.stats_file.writing(), std::try_to_lock);
    if (!writing) return;  // somebody is writing it at this moment
    struct File {
        Heap& heap;
        const char* path;
    } file = {heap, path};
    const auto write = [](void* argument) {
        const File& of = *static_cast<const File*>(argument);
        write_stats_file(of.heap, of.path);
    };
    // Where no child can be made, rather with a number that the program may miss than not at all.
    if (os::run_with_own_table(write, &file) != 0) write(&file);
}

constexpr std::uint64_t soon_ns = 10'000'000;

// How long to sleep when nobody calls: for ever, unless something is due. Nothing to do must cost nothing.
std::uint64_t sleep_ns(Heap& heap, bool more_is_asked, std::uint64_t packing_ns) noexcept {
    std::uint64_t due_ns = UINT64_MAX;
    const auto no_later = [&](bool is_due, std::uint64_t after_ns) {
        if (is_due) due_ns = std::min(due_ns, after_ns);
    };
    no_later(more_is_asked, soon_ns);
    no_later(packing_ns != 0, packing_ns);
    no_later(heap.stats_file.every_ns() != 0, heap.stats_file.every_ns());
    no_later(has_to_evict(heap), std::max<std::uint64_t>(heap.near.rest_left_ns(), 1'000'000));
    no_later(heap.leases.count() != 0, NearLedger::soon_ns_max);
    return due_ns != UINT64_MAX ? due_ns : 0;
}

}  // namespace

void* evictor_main(void* argument) noexcept {
    Heap& heap = *static_cast<Heap*>(argument);
    std::uint64_t looked_after_ns = 0;  // when the rest was
    while (!heap.stop.load(std::memory_order_acquire)) {
        heap.fault_threads.start_rest();
        heap.engine_change.make_if_asked(heap);
        if (has_to_evict(heap)) evict_to_low(heap);
        // What readers make free as they go is given back when they are done, not under their feet.
        const bool helped = heap.read_ahead.help(heap);
        const std::uint64_t now_ns = os::now_ns();
        if (helped && now_ns - looked_after_ns < NearLedger::soon_ns_max) {
            heap.near.wait_for_work(soon_ns);
            continue;
        }
        looked_after_ns = now_ns;
        expire_leases(heap);
        write_stats_if_due(heap);
        const bool converging = converge(heap);
        const bool nominations_left = serve_nominations(heap);
        const std::uint64_t packing_ns = heap.packing.go_on(heap);
        trim_inside(heap);
        heap.near.wait_for_work(sleep_ns(heap, converging || nominations_left, packing_ns));
    }
    return nullptr;
}

}  // namespace pnode
