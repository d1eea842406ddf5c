// Which slab of its size a blob goes into: slabs with a free slot are in their size's list, those that are
// being emptied (packing) in another, and an empty one is the pool's again.

#include <bit>
#include <mutex>

#include "cxl/blob_store_state.h"

namespace pnode::cxl {

BlobStore::State::Place BlobStore::State::locate(BlobRef ref) const {
    const std::uint64_t offset = (ref - 1) * unit_bytes;
    const std::uint64_t at = offset / part_bytes;
    if (ref == no_blob || at >= pool.part_count())
        die("pnode: blob store: a reference to no place in the region\n");
    auto slab = static_cast<SlabIndex>(at);
    const unsigned class_index = class_at(slab);
    const SlotSize& size = classes.slot[class_index];
    if (class_index == 0) die("pnode: blob store: a reference to a slab that is free\n");
    slab &= ~(SlabIndex{size.parts} - 1);
    const auto inside = static_cast<std::uint32_t>(offset - slab * part_bytes);
    if (inside % size.bytes != 0 || inside / size.bytes >= size.slots)
        die("pnode: blob store: a reference into a slot\n");
    return {slab, class_index, inside / size.bytes};
}

void BlobStore::State::set_class(SlabIndex index, unsigned parts, unsigned class_index) {
    for (SlabIndex part = index; part < index + parts; ++part) {
        class_of[part].store(static_cast<std::uint8_t>(class_index), std::memory_order_relaxed);
    }
}

void BlobStore::State::set_sparse(SlabIndex index, unsigned class_index, bool is_sparse) {
    for (SlabIndex part = index; part < index + classes.slot[class_index].parts; ++part)
        sparse[part].store(is_sparse ? 1 : 0, std::memory_order_relaxed);
}

// Into the list that a slab with a free slot is in.
void BlobStore::State::push(SlabIndex index, unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    const bool is_sparse = this->is_sparse(index);
    Slab& slab = slab_at(index, class_index);
    SlabIndex& head = is_sparse ? owner.sparse : owner.partial;
    slab.previous = no_slab;
    slab.next = head;
    if (head != no_slab) slab_at(head, class_index).previous = index;
    if (head == no_slab && !is_sparse) owner.partial_last = index;
    head = index;
    owner.partial_slabs += is_sparse ? 0 : 1;
}

// One that is not sparse, to be used after the others.
void BlobStore::State::push_last(SlabIndex index, unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    if (owner.partial == no_slab) return push(index, class_index);
    Slab& slab = slab_at(index, class_index);
    slab.previous = owner.partial_last;
    slab.next = no_slab;
    slab_at(owner.partial_last, class_index).next = index;
    owner.partial_last = index;
    ++owner.partial_slabs;
}

void BlobStore::State::unlink(SlabIndex index, unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    const bool is_sparse = this->is_sparse(index);
    const Slab& slab = slab_at(index, class_index);
    SlabIndex& head = is_sparse ? owner.sparse : owner.partial;
    (slab.previous != no_slab ? slab_at(slab.previous, class_index).next : head) = slab.next;
    if (slab.next != no_slab) slab_at(slab.next, class_index).previous = slab.previous;
    if (slab.next == no_slab && !is_sparse) owner.partial_last = slab.previous;
    owner.partial_slabs -= is_sparse ? 0 : 1;
}

void BlobStore::State::mark(SlabIndex index, unsigned class_index, bool is_sparse) {
    unlink(index, class_index);
    set_sparse(index, class_index, is_sparse);
    push(index, class_index);
}

// Before another slab is opened, one that is being emptied is no longer.
SlabIndex BlobStore::State::slab_with_room(unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    if (owner.partial == no_slab && owner.sparse != no_slab) mark(owner.sparse, class_index, false);
    return owner.partial != no_slab ? owner.partial : add_slab(class_index);
}

SlabIndex BlobStore::State::add_slab(unsigned class_index) {
    const SlotSize& size = classes.slot[class_index];
    const SlabIndex index = pool.take(size.parts);
    if (index == no_slab) return no_slab;
    tables_of[index] = tables.take(size.slots);
    slab_at(index, class_index).lease_epoch = lease_epoch;
    set_class(index, size.parts, class_index);
    push(index, class_index);
    by_class[class_index].free_slots.add(size.slots);
    return index;
}

void BlobStore::State::remove_slab(SlabIndex index, unsigned class_index) {
    const SlotSize& size = classes.slot[class_index];
    unlink(index, class_index);
    by_class[class_index].free_slots.subtract(size.slots);
    set_sparse(index, class_index, false);
    set_class(index, size.parts, 0);
    tables.give(tables_of[index], size.slots);
    pool.give(index, size.parts);
}

// A free slot exists.
unsigned BlobStore::State::occupy_slot(const SlotTables::View& view) {
    Slab& slab = *view.slab;
    while (view.occupied[slab.first_word] == ~std::uint64_t{0}) ++slab.first_word;
    const unsigned slot =
        slab.first_word * 64u + static_cast<unsigned>(std::countr_one(view.occupied[slab.first_word]));
    set_bit(view.occupied, slot);
    ++slab.occupied;
    return slot;
}

BlobRef BlobStore::State::allocate_in(unsigned class_index, std::size_t bytes) {
    const std::lock_guard guard(by_class[class_index].lock);
    const SlabIndex index = slab_with_room(class_index);
    return index != no_slab ? allocate_at(index, class_index, bytes) : no_blob;
}

// In a slab with a free slot, its class locked.
BlobRef BlobStore::State::allocate_at(SlabIndex index, unsigned class_index, std::size_t bytes) {
    const SlotSize& size = classes.slot[class_index];
    SizeClass& owner = by_class[class_index];
    const SlotTables::View view = this->view(index, class_index);
    settle_lease(view, SlotTables::words(size.slots));
    const unsigned slot = occupy_slot(view);
    if (view.slab->occupied == size.slots) unlink(index, class_index);
    view.slack_bytes[slot] = static_cast<std::uint16_t>(size.bytes - bytes);
    owner.free_slots.subtract(1);
    owner.blobs.add(1);
    owner.blob_bytes.add(bytes);
    return (index * part_bytes + slot * std::size_t{size.bytes}) / unit_bytes + 1;
}

// The slot is scrubbed and its class locked.
void BlobStore::State::vacate_slot(const Place& place, const SlotTables::View& view) {
    Slab& slab = *view.slab;
    const bool was_full = slab.occupied == classes.slot[place.class_index].slots;
    clear_bit(view.occupied, place.slot);
    --slab.occupied;
    if (place.slot / 64 < slab.first_word) slab.first_word = static_cast<std::uint16_t>(place.slot / 64);
    if (slab.quarantined != 0) return;
    by_class[place.class_index].free_slots.add(1);
    if (was_full) push(place.slab, place.class_index);
    if (slab.occupied == 0) remove_slab(place.slab, place.class_index);
}

// With the class locked.
void BlobStore::State::quarantine_slabs(unsigned class_index, SlabIndex first, SlabIndex end) {
    const SlotSize& size = classes.slot[class_index];
    for (SlabIndex part = first; part < end;) {
        const SlabIndex index = part & ~(SlabIndex{size.parts} - 1);
        part = index + size.parts;
        if (class_at(index) != class_index) continue;
        Slab& slab = slab_at(index, class_index);
        if (slab.quarantined != 0) continue;
        if (slab.occupied != size.slots) unlink(index, class_index);
        by_class[class_index].free_slots.subtract(size.slots - slab.occupied);
        slab.quarantined = 1;
        set_sparse(index, class_index, false);
    }
}

}  // namespace pnode::cxl
