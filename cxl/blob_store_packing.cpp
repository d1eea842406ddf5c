// Packing: slabs that hold few blobs are marked, and whoever walks the blobs moves those out of them.

#include <algorithm>
#include <mutex>

#include "cxl/blob_store_state.h"
#include "cxl/packing_plan.h"

namespace pnode::cxl {

namespace {

// Slots this much larger may take a blob that moves.
unsigned end_of_larger(unsigned class_index) {
    unsigned end = class_index + 1;
    while (end < classes.count && classes.slot[end].bytes <= classes.slot[class_index].bytes * 5 / 4) ++end;
    return end;
}

}  // namespace

std::uint32_t BlobStore::State::begun_slabs(unsigned class_index) {
    const std::lock_guard guard(by_class[class_index].lock);
    return by_class[class_index].partial_slabs;
}

// Marks some slabs of one class, the emptiest first, as long as what they hold has room: in those that are
// kept, or, for the last of them, in larger slots. What is kept goes to the list's end, the fullest first, so
// that the next call finds others. How many were looked at; they are few, for others wait for the lock.
std::size_t BlobStore::State::mark_some(Marking* marking) {
    const unsigned class_index = marking->size;
    const SlotSize& size = classes.slot[class_index];
    SizeClass& owner = by_class[class_index];
    std::array<BegunSlab, begun_slabs_max> begun;
    const std::size_t count_max = std::min<std::size_t>(marking->slabs_left, begun.size());
    std::size_t count = 0;
    const std::lock_guard guard(owner.lock);
    for (SlabIndex index = owner.partial; index != no_slab && count < count_max;
         index = slab_at(index, class_index).next)
        begun[count++] = {index, slab_at(index, class_index).occupied};
    const std::span<std::uint32_t> larger =
        std::span(marking->room).subspan(class_index + 1, end_of_larger(class_index) - class_index - 1);
    const PackingPlan plan = plan_packing({begun.data(), count}, size.slots, larger);
    marking->room[class_index] += plan.room;
    marking->bytes += (count - plan.kept) * size.parts * part_bytes;
    for (std::size_t index = 0; index < count; ++index) {
        if (index >= plan.kept) {
            mark(begun[index].slab, class_index, true);
        } else {
            unlink(begun[index].slab, class_index);
            push_last(begun[index].slab, class_index);
        }
    }
    return count;
}

// `room` is told of the larger sizes before it is asked for by a smaller one.
bool BlobStore::mark_sparse(Marking* marking) noexcept {
    static_assert(std::tuple_size_v<decltype(Marking::room)> >= classes.count);
    constexpr std::size_t enough = 256;
    if (is_leased()) return false;
    for (std::size_t looked_at = 0; looked_at < enough;) {
        if (marking->slabs_left == 0) {
            if (marking->size == 1) return false;
            marking->size = marking->size == 0 ? static_cast<unsigned>(classes.count) - 1 : marking->size - 1;
            marking->slabs_left = state_->begun_slabs(marking->size);
        }
        const std::size_t count = state_->mark_some(marking);
        marking->slabs_left = count == 0 ? 0 : marking->slabs_left - static_cast<std::uint32_t>(count);
        looked_at += count;
    }
    return true;
}

std::uint64_t BlobStore::free_slot_bytes() const noexcept {
    std::uint64_t bytes = 0;
    for (unsigned index = 1; index < classes.count; ++index)
        bytes += state_->by_class[index].free_slots.get() * classes.slot[index].bytes;
    return bytes;
}

bool BlobStore::is_in_sparse(BlobRef ref) const noexcept {
    return state_->is_sparse(static_cast<SlabIndex>((ref - 1) * unit_bytes / part_bytes));
}

// From the size that fits best on.
BlobRef BlobStore::allocate_elsewhere(BlobRef ref) noexcept {
    State& state = *state_;
    const State::Place place = state.locate(ref);
    std::size_t bytes = 0;
    {
        const std::lock_guard guard(state.by_class[place.class_index].lock);
        bytes = state.bytes_of(place);
    }
    const unsigned fitting = class_for(bytes);
    for (unsigned index = fitting; index < end_of_larger(fitting); ++index) {
        const SizeClass& owner = state.by_class[index];
        const std::lock_guard guard(state.by_class[index].lock);
        if (owner.partial != no_slab) return state.allocate_at(owner.partial, index, bytes);
    }
    return no_blob;
}

bool BlobStore::unmark_sparse() noexcept {
    unsigned left = 256;
    for (unsigned index = 1; index < classes.count; ++index) {
        SizeClass& owner = state_->by_class[index];
        const std::lock_guard guard(owner.lock);
        for (; owner.sparse != no_slab; --left) {
            if (left == 0) return true;
            state_->mark(owner.sparse, index, false);
        }
    }
    return false;
}

}  // namespace pnode::cxl
