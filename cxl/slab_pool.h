// Which parts of a region are taken, which may hold pages, and how many that are.
//
// A chunk is 64 parts of 8 KiB. A slab is 1, 2, 4, 8 or all 64 parts of a chunk, at a multiple of its size.
// A part is
//     taken        somebody's
//     free dirty   nobody's, but its pages may still be there: it counts as physical until it is discarded
//     free clean   nobody's, and the region holds nothing of it
//     discarding   being given back by a trim() outside the lock: neither free nor taken, still counted
// so physical_bytes() is never less than what the region holds. Chunks with dirty parts are used first:
// those cost nothing more. Among them, the one whose largest free run is smallest, to keep large runs whole.
//
// Thread rule: any thread; one short spin lock, innermost of the store's. The chunks' words are private
// memory and lazy.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cxl/region.h"
#include "cxl/size_classes.h"
#include "cxl/spin_lock.h"
#include "cxl/unmanaged.h"

namespace pnode::cxl {

using SlabIndex = std::uint32_t;  // counts parts; a slab goes by its first
inline constexpr SlabIndex no_slab = 0xffffffff;

class SlabPool {
  public:
    // Uses the region's whole parts among its first `region_bytes_max`.
    SlabPool(Region& region, std::size_t region_bytes_max);

    // A slab of 1, 2, 4, 8 or parts_per_chunk parts. no_slab: none is free, or physical_bytes() would pass
    // its maximum (or has passed it already, since that was lowered); a trim() may cure the latter.
    SlabIndex take(unsigned parts) noexcept;
    void give(SlabIndex slab, unsigned parts) noexcept;

    // A run of whole chunks, and back again. no_slab: as take().
    SlabIndex take_chunks(unsigned chunks) noexcept;
    void give_chunks(SlabIndex slab, unsigned chunks) noexcept;

    // Free parts among [first, end) are taken for good.
    void quarantine(SlabIndex first, SlabIndex end) noexcept;
    std::uint64_t quarantined_bytes() const noexcept {
        return quarantined_bytes_.load(std::memory_order_relaxed);
    }
    // Clears every dirty part, of whoever it is.
    void wipe() noexcept;

    // Discards free dirty parts, of at most 64 chunks. Returns bytes discarded; what the region refuses stays
    // free, dirty and counted. One at a time: others wait, for slabs on their way are free for nobody.
    std::size_t trim() noexcept;

    SlabIndex part_count() const noexcept { return part_count_; }
    std::uint64_t physical_bytes() const noexcept { return physical_bytes_.load(std::memory_order_relaxed); }
    std::atomic<std::uint64_t> physical_bytes_max;

    void lock() noexcept { lock_.lock(); }
    void unlock() noexcept { lock_.unlock(); }

    // With no concurrent callers: is the part somebody's; nullptr or what is wrong.
    bool is_taken(SlabIndex part) const noexcept;
    bool is_quarantined(SlabIndex part) const noexcept;
    const char* validate() const;

  private:
    // Chunks with free parts are listed by the largest slab they have room for, those with a free dirty part
    // apart from the others.
    static constexpr std::array<unsigned, 5> slab_parts = {1, 2, 4, 8, parts_per_chunk};
    using List = std::uint8_t;
    static constexpr List unlisted = 0;
    static constexpr List first_dirty = 1;
    static constexpr List first_clean = first_dirty + slab_parts.size();
    static constexpr List list_count = first_clean + slab_parts.size();
    using ChunkIndex = std::uint32_t;
    using Mask = std::uint64_t;  // a bit per part of a chunk

    struct Chunk {
        ChunkIndex previous, next;  // plus one; 0 ends
        Mask taken, dirty, discarding;
        Mask quarantined;  // of those taken: nobody's, and never free again
        List list;
    };
    struct Discard {
        Mask parts;
        ChunkIndex chunk;
        bool done;
    };
    static constexpr std::size_t trim_chunks_max = 64;

    static Mask slab_at(SlabIndex slab, unsigned parts) noexcept;
    static Mask starts_of_slabs(Mask parts_free, unsigned parts) noexcept;
    static Mask free_parts(const Chunk& chunk) noexcept;
    static List list_for(const Chunk& chunk) noexcept;
    void relist(ChunkIndex index) noexcept;
    void unlink(Chunk& chunk) noexcept;
    bool open_chunk() noexcept;
    ChunkIndex find(unsigned parts) noexcept;
    bool claim(Chunk& chunk, Mask parts) noexcept;
    void release_chunk(ChunkIndex index) noexcept;
    std::size_t begin_discards(Discard* batch) noexcept;
    std::size_t finish_discards(const Discard* batch, std::size_t count) noexcept;
    bool discard(const Discard& entry) noexcept;

    Region& region_;
    const SlabIndex part_count_;
    const ChunkIndex chunk_count_;
    LazyArray<Chunk> chunks_;
    SpinLock trim_lock_;  // before lock_; not fork's to hold: a child never trims its parent's store
    SpinLock lock_;
    // All below and the chunks: under lock_. Chunks from chunks_opened_ on have never been used.
    ChunkIndex chunks_opened_ = 0;
    ChunkIndex heads_[list_count] = {};                // plus one; 0 is empty
    std::atomic<std::uint64_t> physical_bytes_{0};     // written under lock_, read without
    std::atomic<std::uint64_t> quarantined_bytes_{0};  // the same
};

}  // namespace pnode::cxl
