// Direct buffers: whole slabs that their owner uses in place.

#include <bit>
#include <mutex>
#include <utility>

#include "cxl/blob_store_state.h"

namespace pnode::cxl {

// Slabs up to 64 KiB, then whole chunks.
std::byte* BlobStore::take_direct(std::size_t bytes) noexcept {
    State& state = *state_;
    const std::size_t wanted = (bytes + part_bytes - 1) / part_bytes;
    if (wanted == 0 || wanted > state.pool.part_count()) return nullptr;
    auto parts = static_cast<unsigned>(wanted);
    const unsigned chunks = (parts + parts_per_chunk - 1) / parts_per_chunk;
    parts = parts <= 8 ? std::bit_ceil(parts) : chunks * parts_per_chunk;
    const auto take = [&] { return parts <= 8 ? state.pool.take(parts) : state.pool.take_chunks(chunks); };
    SlabIndex slab = take();
    if (slab == no_slab) {
        trim();
        slab = take();
    }
    if (slab == no_slab) return nullptr;
    const std::size_t offset = slab * part_bytes;
    // What is free was scrubbed; only a device's bytes may be an earlier tenant's.
    if (state.region.outlives_owner()) state.region.clear(offset, parts * part_bytes);
    const std::lock_guard guard(state.direct_lock);
    state.direct_parts[slab] = parts;
    state.direct_bytes.add(parts * part_bytes);
    state.direct_buffers.add(1);
    return state.base + offset;
}

bool BlobStore::give_direct(std::byte* address) noexcept {
    State& state = *state_;
    const auto offset = static_cast<std::size_t>(address - state.base);
    if (address < state.base || offset % part_bytes != 0 || offset / part_bytes >= state.pool.part_count())
        return false;
    const auto slab = static_cast<SlabIndex>(offset / part_bytes);
    unsigned parts = 0;
    {
        const std::lock_guard guard(state.direct_lock);
        parts = std::exchange(state.direct_parts[slab], 0);
        if (parts == 0) return false;
        state.direct_bytes.subtract(parts * part_bytes);
        state.direct_buffers.subtract(1);
    }
    state.region.clear(offset, parts * part_bytes);
    if (parts <= 8) state.pool.give(slab, parts);
    if (parts > 8) state.pool.give_chunks(slab, parts / parts_per_chunk);
    return true;
}

std::uint64_t BlobStore::direct_bytes() const noexcept {
    return state_->direct_bytes.get();
}

std::uint64_t BlobStore::direct_buffers() const noexcept {
    return state_->direct_buffers.get();
}

}  // namespace pnode::cxl
