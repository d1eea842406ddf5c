// A walk over everything that the store believes.

#include <array>
#include <cstring>

#include "cxl/blob_store_state.h"

namespace pnode::cxl {

// Adds what the slab's own tables say to `sum`.
const char* BlobStore::State::validate_slab(SlabIndex index, StoreCounters* sum) const {
    const unsigned class_index = class_at(index);
    const SlotSize& size = classes.slot[class_index];
    const SlotTables::View view = this->view(index, class_index);
    const Slab& slab = *view.slab;
    for (SlabIndex part = index; part < index + size.parts; ++part)
        if (is_sparse(part) != is_sparse(index)) return "a slab is sparse in part";
    unsigned occupied = 0;
    unsigned deferred = 0;
    for (unsigned slot = 0; slot < SlotTables::words(size.slots) * 64; ++slot) {
        const bool is_occupied = has_bit(view.occupied, slot);
        const bool is_deferred = has_bit(view.deferred, slot);
        if (is_occupied && slot >= size.slots) return "a slot beyond its slab's end is occupied";
        if (is_deferred && !is_occupied) return "a deferred slot is not occupied";
        if (!is_occupied && slot < size.slots && slot / 64 < slab.first_word)
            return "a free slot is not looked for";
        occupied += is_occupied ? 1 : 0;
        deferred += is_deferred ? 1 : 0;
        if (is_occupied && !is_deferred) sum->blob_bytes += size.bytes - view.slack_bytes[slot];
    }
    if (occupied != slab.occupied || deferred != slab.deferred)
        return "a slab's counts differ from its bitmaps";
    if (occupied == 0 && slab.quarantined == 0) return "an empty slab was not given back";
    sum->blobs += occupied - deferred;
    sum->slot_bytes += std::uint64_t{occupied - deferred} * size.bytes;
    sum->leased_blobs += deferred;
    return nullptr;
}

const char* BlobStore::State::validate_list(SlabIndex head, unsigned class_index, bool is_sparse,
                                            std::size_t slabs) const {
    SlabIndex previous = no_slab;
    for (SlabIndex index = head; index != no_slab; index = slab_at(index, class_index).next) {
        if (slabs-- == 0) return "a list of slabs with a free slot has a cycle or a full slab";
        if (class_at(index) != class_index) return "a slab is in the list of another class";
        const Slab& slab = slab_at(index, class_index);
        if (slab.previous != previous) return "a list of slabs with a free slot is broken";
        if (this->is_sparse(index) != is_sparse) return "a slab is in the wrong list of its class";
        previous = index;
    }
    if (!is_sparse && by_class[class_index].partial_last != previous)
        return "a list of slabs with a free slot has another end";
    return slabs == 0 ? nullptr : "a slab is missing from a list";
}

const char* BlobStore::State::validate_lists(unsigned class_index, Listed listed) const {
    const SizeClass& owner = by_class[class_index];
    if (owner.partial_slabs != listed.partial || owner.free_slots.get() != listed.free_slots)
        return "slabs with a free slot, or the slots, are miscounted";
    if (const char* wrong = validate_list(owner.partial, class_index, false, listed.partial)) return wrong;
    if (const char* wrong = validate_list(owner.sparse, class_index, true, listed.sparse)) return wrong;
    for (SlabIndex index = owner.with_deferred; index != no_slab;
         index = slab_at(index, class_index).next_deferred) {
        if (listed.with_deferred-- == 0)
            return "the list of slabs with deferred slots has a cycle or one without";
        if (class_at(index) != class_index) return "a slab is in the deferred list of another class";
    }
    return listed.with_deferred == 0 ? nullptr : "a slab is missing from a list";
}

const char* BlobStore::validate() const {
    const State& state = *state_;
    if (const char* wrong = state.pool.validate()) return wrong;
    std::array<State::Listed, classes.count> listed{};
    StoreCounters sum{};
    sum.physical_bytes = physical_bytes();
    for (SlabIndex index = 0; index < state.pool.part_count();) {
        const unsigned class_index = state.class_at(index);
        if (const std::uint32_t parts = state.direct_parts[index]) {
            index += parts;
            continue;
        }
        if ((class_index != 0 || state.pool.is_quarantined(index)) != state.pool.is_taken(index))
            return "a part is taken and has no class, or the reverse";
        if (class_index == 0) {
            ++index;
            continue;
        }
        if (const char* wrong = state.validate_slab(index, &sum)) return wrong;
        const Slab& slab = state.slab_at(index, class_index);
        const bool has_room = slab.occupied < classes.slot[class_index].slots && slab.quarantined == 0;
        const bool is_sparse = state.is_sparse(index);
        (is_sparse ? listed[class_index].sparse : listed[class_index].partial) += has_room ? 1 : 0;
        if (has_room) listed[class_index].free_slots += classes.slot[class_index].slots - slab.occupied;
        listed[class_index].with_deferred += slab.deferred != 0 ? 1 : 0;
        index += classes.slot[class_index].parts;
    }
    for (unsigned index = 1; index < classes.count; ++index) {
        if (const char* wrong = state.validate_lists(index, listed[index])) return wrong;
    }
    const StoreCounters told = counters();
    return std::memcmp(&told, &sum, sizeof sum) == 0 ? nullptr : "the counters differ from the walk";
}

}  // namespace pnode::cxl
