// Leases: blobs that a forked child may still read stay as they are, freed or not.

#include <mutex>

#include "cxl/blob_store_state.h"

namespace pnode::cxl {

// Brings a slab's `leased` up to date before its first change since the last lease_all(): what it holds now
// is what it held then.
void BlobStore::State::settle_lease(const SlotTables::View& view, std::size_t words) {
    Slab& slab = *view.slab;
    if (slab.lease_epoch == lease_epoch) return;
    const bool leased_before = slab.lease_epoch >= first_lease_epoch;
    for (std::size_t word = 0; word < words; ++word) {
        view.leased[word] = view.occupied[word] | (leased_before ? view.leased[word] : 0);
    }
    slab.lease_epoch = lease_epoch;
}

bool BlobStore::State::defer_if_leased(const Place& place, const SlotTables::View& view) {
    if (leases.load(std::memory_order_relaxed) == 0) return false;
    Slab& slab = *view.slab;
    SizeClass& owner = by_class[place.class_index];
    settle_lease(view, SlotTables::words(classes.slot[place.class_index].slots));
    if (!has_bit(view.leased, place.slot)) return false;
    set_bit(view.deferred, place.slot);
    if (slab.deferred++ == 0) {
        slab.next_deferred = owner.with_deferred;
        owner.with_deferred = place.slab;
    }
    owner.leased_blobs.add(1);
    return true;
}

// Frees the deferred slots of one slab. False: none is left, or a new lease may cover them.
bool BlobStore::State::free_deferred(unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    const std::lock_guard guard(owner.lock);
    if (owner.with_deferred == no_slab || leases.load(std::memory_order_relaxed) != 0) return false;
    const SlabIndex index = owner.with_deferred;
    const SlotTables::View view = this->view(index, class_index);
    Slab& slab = *view.slab;
    owner.with_deferred = slab.next_deferred;
    owner.leased_blobs.subtract(slab.deferred);
    unsigned left = slab.deferred;
    slab.deferred = 0;
    // By count: after the last slot the slab, and with it the view, may be somebody else's.
    for (unsigned slot = 0; left != 0; ++slot) {
        if (!has_bit(view.deferred, slot)) continue;
        --left;
        clear_bit(view.deferred, slot);
        scrub({index, class_index, slot});
        vacate_slot({index, class_index, slot}, view);
    }
    return true;
}

bool BlobStore::is_leased() const noexcept {
    return state_->leases.load(std::memory_order_relaxed) != 0;
}

void BlobStore::lease_all_locked() noexcept {
    ++state_->lease_epoch;
    if (state_->leases.fetch_add(1, std::memory_order_relaxed) == 0)
        state_->first_lease_epoch = state_->lease_epoch;
}

void BlobStore::lease_all() noexcept {
    lock_all();
    lease_all_locked();
    unlock_all();
}

void BlobStore::end_lease() noexcept {
    lock_all();
    const std::uint32_t leases = state_->leases.fetch_sub(1, std::memory_order_relaxed);
    unlock_all();
    if (leases == 0) die("pnode: blob store: a lease ended that never began\n");
    if (leases > 1) return;
    for (unsigned index = 1; index < classes.count; ++index) {
        while (state_->free_deferred(index)) continue;
    }
}

}  // namespace pnode::cxl
