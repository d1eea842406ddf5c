#include "cxl/blob_store.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "cxl/blob_store_state.h"

namespace pnode::cxl {

void die(std::string_view message) noexcept {
    // Nothing to be done when even this write fails.
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message.data(), message.size());
    std::abort();
}

BlobStore::BlobStore(Region& region, std::size_t physical_bytes_max)
    : state_(new State(region, region_bytes_max)) {
    set_physical_bytes_max(physical_bytes_max);
}

BlobStore::~BlobStore() = default;

BlobRef BlobStore::allocate(std::size_t bytes) noexcept {
    if (!is_blob_size(bytes)) return no_blob;
    const unsigned class_index = class_for(bytes);
    const BlobRef ref = state_->allocate_in(class_index, bytes);
    if (ref != no_blob) return ref;
    trim();  // waits for another's, whose slabs are then free again
    return state_->allocate_in(class_index, bytes);
}

void BlobStore::free(BlobRef ref) noexcept {
    State& state = *state_;
    const State::Place place = state.locate(ref);
    SizeClass& owner = state.by_class[place.class_index];
    const std::lock_guard guard(owner.lock);
    const SlotTables::View view = state.view(place.slab, place.class_index);
    if (!has_bit(view.occupied, place.slot) || has_bit(view.deferred, place.slot))
        die("pnode: blob store: a blob freed twice\n");
    owner.blobs.subtract(1);
    owner.blob_bytes.subtract(state.bytes_of(place));
    if (state.defer_if_leased(place, view)) return;
    state.scrub(place);
    state.vacate_slot(place, view);
}

std::span<std::byte> BlobStore::bytes(BlobRef ref) const noexcept {
    const std::uint64_t offset = (ref - 1) * unit_bytes;
    const unsigned class_index = state_->class_at(static_cast<SlabIndex>(offset / part_bytes));
    return {state_->base + offset, classes.slot[class_index].bytes};
}

std::size_t BlobStore::slot_bytes_for(std::size_t bytes) noexcept {
    return is_blob_size(bytes) ? classes.slot[class_for(bytes)].bytes : 0;
}

bool BlobStore::write(BlobRef ref, std::span<const std::byte> blob) noexcept {
    return state_->region.store((ref - 1) * unit_bytes, blob);
}

void BlobStore::quarantine(std::size_t offset, std::size_t length) noexcept {
    State& state = *state_;
    const auto first =
        static_cast<SlabIndex>(std::min<std::size_t>(offset / part_bytes, state.pool.part_count()));
    const auto end = static_cast<SlabIndex>(
        std::min<std::size_t>((offset + length + part_bytes - 1) / part_bytes, state.pool.part_count()));
    // Free parts, then slabs, then what became free between the two.
    state.pool.quarantine(first, end);
    for (unsigned index = 1; index < classes.count; ++index) {
        const std::lock_guard guard(state.by_class[index].lock);
        state.quarantine_slabs(index, first, end);
    }
    state.pool.quarantine(first, end);
}

std::uint64_t BlobStore::quarantined_bytes() const noexcept {
    return state_->pool.quarantined_bytes();
}

void BlobStore::wipe() noexcept {
    state_->pool.wipe();
}

std::size_t BlobStore::trim() noexcept {
    return state_->pool.trim();
}

void BlobStore::lock_all() noexcept {
    for (unsigned index = 1; index < classes.count; ++index) state_->by_class[index].lock.lock();
    state_->tables.lock();
    state_->pool.lock();
}

void BlobStore::unlock_all() noexcept {
    state_->pool.unlock();
    state_->tables.unlock();
    for (unsigned index = 1; index < classes.count; ++index) state_->by_class[index].lock.unlock();
}

void BlobStore::set_physical_bytes_max(std::size_t bytes) noexcept {
    const std::uint64_t all = std::uint64_t{state_->pool.part_count()} * part_bytes;
    state_->pool.physical_bytes_max.store(bytes == 0 ? all : bytes, std::memory_order_relaxed);
}

std::size_t BlobStore::physical_bytes_max() const noexcept {
    return state_->pool.physical_bytes_max.load(std::memory_order_relaxed);
}

std::uint64_t BlobStore::physical_bytes() const noexcept {
    return state_->pool.physical_bytes();
}

StoreCounters BlobStore::counters() const noexcept {
    StoreCounters sum{};
    sum.physical_bytes = physical_bytes();
    for (unsigned index = 1; index < classes.count; ++index) {
        const SizeClass& owner = state_->by_class[index];
        const std::uint64_t blobs = owner.blobs.get();
        sum.blobs += blobs;
        sum.slot_bytes += blobs * classes.slot[index].bytes;
        sum.blob_bytes += owner.blob_bytes.get();
        sum.leased_blobs += owner.leased_blobs.get();
    }
    return sum;
}

}  // namespace pnode::cxl
