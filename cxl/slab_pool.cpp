#include "cxl/slab_pool.h"

#include <algorithm>
#include <bit>
#include <mutex>

namespace pnode::cxl {

namespace {
constexpr unsigned whole_chunk = (1u << slabs_per_chunk) - 1;
}

SlabPool::SlabPool(Region& region, std::size_t region_bytes_max)
    : physical_bytes_max(region.size_bytes()),
      region_(region),
      slab_count_(static_cast<SlabIndex>(std::min(region.size_bytes(), region_bytes_max) / small_slab_bytes)),
      chunk_count_(static_cast<ChunkIndex>((slab_count_ + slabs_per_chunk - 1) / slabs_per_chunk)),
      chunks_(chunk_count_) {}

SlabPool::Mask SlabPool::free_slabs(const Chunk& chunk) noexcept {
    return static_cast<Mask>(whole_chunk & ~(chunk.taken | chunk.discarding));
}

SlabPool::List SlabPool::list_for(const Chunk& chunk) noexcept {
    const Mask free = free_slabs(chunk);
    if (free == 0) return unlisted;
    const bool dirty = (free & chunk.dirty) != 0;
    if (free == whole_chunk) return dirty ? whole_dirty : whole_clean;
    return dirty ? partial_dirty : partial_clean;
}

void SlabPool::unlink(Chunk& chunk) noexcept {
    if (chunk.list == unlisted) return;
    (chunk.previous != 0 ? chunks_[chunk.previous - 1].next : heads_[chunk.list]) = chunk.next;
    if (chunk.next != 0) chunks_[chunk.next - 1].previous = chunk.previous;
    chunk.list = unlisted;
}

// A chunk's list follows from its masks alone: call this after every change to them.
void SlabPool::relist(ChunkIndex index) noexcept {
    Chunk& chunk = chunks_[index];
    const List list = list_for(chunk);
    if (list == chunk.list) return;
    unlink(chunk);
    if (list == unlisted) return;
    chunk.list = list;
    chunk.previous = 0;
    chunk.next = heads_[list];
    if (chunk.next != 0) chunks_[chunk.next - 1].previous = index + 1;
    heads_[list] = index + 1;
}

// Lists the next chunk that was never used. Slabs beyond the region's end are taken for good.
bool SlabPool::open_chunk() noexcept {
    if (chunks_opened_ == chunk_count_) return false;
    const ChunkIndex index = chunks_opened_++;
    const SlabIndex slabs = std::min(slabs_per_chunk, slab_count_ - index * slabs_per_chunk);
    chunks_[index].taken = static_cast<Mask>(whole_chunk & ~((1u << slabs) - 1));
    relist(index);
    return true;
}

// A chunk with a free slab (or all free), plus one, dirty before clean before unused; 0 for none.
SlabPool::ChunkIndex SlabPool::find(bool large) noexcept {
    do {
        if (!large && heads_[partial_dirty] != 0) return heads_[partial_dirty];
        if (heads_[whole_dirty] != 0) return heads_[whole_dirty];
        if (!large && heads_[partial_clean] != 0) return heads_[partial_clean];
        if (heads_[whole_clean] != 0) return heads_[whole_clean];
    } while (open_chunk());
    return 0;
}

bool SlabPool::claim(Chunk& chunk, Mask slabs) noexcept {
    const auto clean = static_cast<unsigned>(slabs & ~chunk.dirty);
    const std::uint64_t physical = physical_bytes() + std::popcount(clean) * small_slab_bytes;
    if (physical > physical_bytes_max.load(std::memory_order_relaxed)) return false;
    physical_bytes_.store(physical, std::memory_order_relaxed);
    chunk.taken = static_cast<Mask>(chunk.taken | slabs);
    chunk.dirty = static_cast<Mask>(chunk.dirty | slabs);
    return true;
}

SlabIndex SlabPool::take(bool large) noexcept {
    const std::lock_guard guard(lock_);
    const ChunkIndex found = find(large);
    if (found == 0) return no_slab;
    const ChunkIndex index = found - 1;
    Chunk& chunk = chunks_[index];
    unsigned candidates = free_slabs(chunk);
    if ((candidates & chunk.dirty) != 0) candidates &= chunk.dirty;
    const int first = large ? 0 : std::countr_zero(candidates);
    if (!claim(chunk, static_cast<Mask>(large ? whole_chunk : 1u << first))) return no_slab;
    relist(index);
    return index * slabs_per_chunk + static_cast<unsigned>(first);
}

void SlabPool::give(SlabIndex slab, bool large) noexcept {
    const std::lock_guard guard(lock_);
    const ChunkIndex index = slab / slabs_per_chunk;
    const unsigned slabs = large ? whole_chunk : 1u << (slab % slabs_per_chunk);
    chunks_[index].taken = static_cast<Mask>(chunks_[index].taken & ~slabs);
    relist(index);
}

std::size_t SlabPool::begin_discards(Discard* batch) noexcept {
    const std::lock_guard guard(lock_);
    std::size_t count = 0;
    while (count < trim_chunks_max) {
        const ChunkIndex head = heads_[whole_dirty] != 0 ? heads_[whole_dirty] : heads_[partial_dirty];
        if (head == 0) break;
        Chunk& chunk = chunks_[head - 1];
        const auto slabs = static_cast<Mask>(free_slabs(chunk) & chunk.dirty);
        chunk.discarding = static_cast<Mask>(chunk.discarding | slabs);
        relist(head - 1);
        batch[count++] = {head - 1, slabs, false};
    }
    return count;
}

// One call to the region per run of neighbours.
bool SlabPool::discard(const Discard& entry) noexcept {
    unsigned left = entry.slabs;
    while (left != 0) {
        const int first = std::countr_zero(left);
        const int slabs = std::countr_one(left >> first);
        const std::size_t offset =
            (entry.chunk * slabs_per_chunk + static_cast<unsigned>(first)) * small_slab_bytes;
        if (region_.discard(offset, static_cast<unsigned>(slabs) * small_slab_bytes) != 0) return false;
        left &= ~(((1u << slabs) - 1) << first);
    }
    return true;
}

std::size_t SlabPool::finish_discards(const Discard* batch, std::size_t count) noexcept {
    const std::lock_guard guard(lock_);
    std::size_t discarded = 0;
    for (const Discard* entry = batch; entry != batch + count; ++entry) {
        Chunk& chunk = chunks_[entry->chunk];
        chunk.discarding = static_cast<Mask>(chunk.discarding & ~entry->slabs);
        if (entry->done) {
            chunk.dirty = static_cast<Mask>(chunk.dirty & ~entry->slabs);
            discarded += std::popcount(static_cast<unsigned>(entry->slabs)) * small_slab_bytes;
        }
        relist(entry->chunk);
    }
    physical_bytes_.store(physical_bytes() - discarded, std::memory_order_relaxed);
    return discarded;
}

std::size_t SlabPool::trim() noexcept {
    Discard batch[trim_chunks_max];
    const std::size_t count = begin_discards(batch);
    for (std::size_t i = 0; i < count; ++i) batch[i].done = discard(batch[i]);
    return finish_discards(batch, count);
}

bool SlabPool::is_taken(SlabIndex slab) const noexcept {
    return (chunks_[slab / slabs_per_chunk].taken >> (slab % slabs_per_chunk) & 1) != 0;
}

const char* SlabPool::validate() const {
    std::uint64_t dirty_slabs = 0;
    std::uint64_t listed = 0;
    for (ChunkIndex index = 0; index < chunks_opened_; ++index) {
        const Chunk& chunk = chunks_[index];
        if (chunk.discarding != 0) return "a slab is being discarded by nobody";
        if (chunk.list != list_for(chunk)) return "a chunk is in the wrong list";
        if (chunk.list != unlisted) ++listed;
        for (SlabIndex slab = index * slabs_per_chunk;
             slab < (index + 1) * slabs_per_chunk && slab < slab_count_; ++slab) {
            const bool dirty = (chunk.dirty >> (slab % slabs_per_chunk) & 1) != 0;
            if (is_taken(slab) && !dirty) return "a taken slab is not counted as physical";
            dirty_slabs += dirty ? 1 : 0;
        }
    }
    for (unsigned list = partial_dirty; list < list_count; ++list) {
        ChunkIndex previous = 0;
        for (ChunkIndex link = heads_[list]; link != 0; link = chunks_[link - 1].next) {
            if (listed-- == 0) return "the lists of chunks have a cycle";
            if (chunks_[link - 1].list != list || chunks_[link - 1].previous != previous)
                return "a list of chunks is broken";
            previous = link;
        }
    }
    if (listed != 0) return "a chunk is in no list";
    return physical_bytes() == dirty_slabs * small_slab_bytes ? nullptr
                                                              : "physical_bytes differs from the walk";
}

}  // namespace pnode::cxl
