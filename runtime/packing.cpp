#include "runtime/packing.h"

#include <algorithm>

#include "runtime/each_word.h"
#include "runtime/heap.h"
#include "runtime/replace_blob.h"

namespace pnode {
namespace {

constexpr unsigned piece_words = 8192;      // looked at, and
constexpr unsigned piece_moves = 64;        // of blobs, each a microsecond or less
constexpr unsigned times_in_vain_max = 4;   // pages that were in use then may not be later
constexpr unsigned evictor_gain_part = 64;  // of the store, for which its pages are walked over
constexpr unsigned evictor_cpu_part = 100;  // of one processor, at most

// Far, or near with its blob kept, and the blob our own.
bool has_own_blob(const Heap& heap, PageWord word) noexcept {
    return (word.state() == PageState::far || word.state() == PageState::near) &&
           word.place() != cxl::no_blob && word.store() == heap.far.own_store();
}

// On a node that others may share most would be theirs.
bool is_the_evictors(Heap& heap) noexcept {
    return !Recompressor::is_wanted(heap) && heap.far.has_node_alone() && heap.far.node()->may_pack();
}

}  // namespace

// Under a lease what moved would be there twice. What the last time left it could not gain, as a rule: not
// again before there is more.
bool Packing::is_due(Heap& heap, unsigned gain_part) noexcept {
    const cxl::BlobStore& store = *heap.far.store();
    const std::uint64_t free_bytes = store.free_slot_bytes();
    free_bytes_left_ = std::min(free_bytes_left_, free_bytes);
    least_bytes_ = heap.config.stress ? 1 : store.physical_bytes() / gain_part + 1;
    return !store.is_leased() && free_bytes >= free_bytes_left_ + least_bytes_;
}

bool Packing::begin(Heap& heap, unsigned gain_part) noexcept {
    if (!is_due(heap, gain_part)) return false;
    marking_ = {};
    hand_ = 0;
    has_moved_ = false;
    phase_ = Phase::marking;
    return true;
}

bool Packing::piece(Heap& heap, std::span<std::byte> copy) noexcept {
    cxl::BlobStore& store = *heap.far.store();
    if (store.is_leased()) phase_ = Phase::unmarking;
    if (phase_ == Phase::marking) {
        mark(heap);
    } else if (phase_ == Phase::moving) {
        move(heap, copy);
    } else if (!store.unmark_sparse()) {
        phase_ = Phase::none;
        trim(heap);
        // What became free after the marking was not tried. But where nothing moves, time after time, it is
        // in vain.
        times_in_vain_ = has_moved_ ? 0 : times_in_vain_ + 1;
        free_bytes_left_ = times_in_vain_ < times_in_vain_max ? free_bytes_after_ : store.free_slot_bytes();
        // A lease kept it from what it could have gained.
        if (store.is_leased()) free_bytes_left_ = 0;
    }
    return phase_ != Phase::none;
}

void Packing::mark(Heap& heap) noexcept {
    cxl::BlobStore& store = *heap.far.store();
    if (store.mark_sparse(&marking_)) return;
    const std::uint64_t free_bytes = store.free_slot_bytes();
    free_bytes_after_ = free_bytes - std::min(free_bytes, marking_.bytes);
    phase_ = marking_.bytes >= least_bytes_ ? Phase::moving : Phase::unmarking;
}

void Packing::move(Heap& heap, std::span<std::byte> copy) noexcept {
    const cxl::BlobStore& store = *heap.far.store();
    unsigned words = 0;
    unsigned moved = 0;
    hand_ = for_each_word(heap, hand_, [&](std::uint64_t page, PageWord word) {
        if (has_own_blob(heap, word) && store.is_in_sparse(word.place()))
            moved += move_blob(heap, page, word, copy) ? 1 : 0;
        return ++words < piece_words && moved < piece_moves;
    });
    heap.statistics.blobs_moved.add(moved);
    has_moved_ = has_moved_ || moved != 0;
    if (hand_ >= heap.page_count) phase_ = Phase::unmarking;
}

std::uint64_t Packing::go_on(Heap& heap) noexcept {
    const Inside inside(heap.operations);
    if (!is_the_evictors(heap)) return 0;
    if (phase_ == Phase::none && !begin(heap, evictor_gain_part)) return 0;
    const std::uint64_t now_ns = os::now_ns();
    if (now_ns < rests_until_ns_) return rests_until_ns_ - now_ns;
    const std::uint64_t before_ns = os::thread_cpu_ns();
    {
        const LentEvictLane lane(heap.evict_lanes);
        piece(heap, {lane->blob, batch_pages * EvictLane::blob_bytes_max});
    }
    const std::uint64_t spent_ns = os::thread_cpu_ns() - before_ns;
    heap.statistics.packing_cpu_ns.add(spent_ns);
    const std::uint64_t rest_ns = spent_ns * (heap.config.stress ? 1 : evictor_cpu_part - 1);
    rests_until_ns_ = os::now_ns() + rest_ns;
    const bool goes_on = phase_ != Phase::none || is_due(heap, evictor_gain_part);
    return goes_on ? std::max<std::uint64_t>(rest_ns, 1) : 0;
}

}  // namespace pnode
