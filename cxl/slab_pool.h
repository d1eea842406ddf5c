// Which slabs of a region are taken, which may hold pages, and how many that are.
//
// A chunk is eight slabs of 64 KiB, handed out one by one or whole. A slab is
//     taken        somebody's
//     free dirty   nobody's, but its pages may still be there: it counts as physical until it is discarded
//     free clean   nobody's, and the region holds nothing of it
//     discarding   being given back by a trim() outside the lock: neither free nor taken, still counted
// so physical_bytes() is never less than what the region holds. Dirty slabs are reused first: they cost
// nothing more.
//
// Thread rule: any thread; one short spin lock, innermost of the store's. The chunks' words are private
// memory and lazy.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cxl/region.h"
#include "cxl/size_classes.h"
#include "cxl/spin_lock.h"
#include "cxl/unmanaged.h"

namespace pnode::cxl {

using SlabIndex = std::uint32_t;  // counts 64 KiB; a large slab goes by its first
inline constexpr SlabIndex no_slab = 0xffffffff;

class SlabPool {
  public:
    // Uses the region's whole slabs among its first `region_bytes_max`.
    SlabPool(Region& region, std::size_t region_bytes_max);

    // One slab, or all eight of a chunk (`large`). no_slab: none is free, or physical_bytes() would pass its
    // maximum (or has passed it already, since that was lowered); a trim() may cure the latter.
    SlabIndex take(bool large) noexcept;
    void give(SlabIndex slab, bool large) noexcept;

    // Discards free dirty slabs, of at most 64 chunks. Returns bytes discarded; what the region refuses stays
    // free, dirty and counted.
    std::size_t trim() noexcept;

    SlabIndex slab_count() const noexcept { return slab_count_; }
    std::uint64_t physical_bytes() const noexcept { return physical_bytes_.load(std::memory_order_relaxed); }
    std::atomic<std::uint64_t> physical_bytes_max;

    void lock() noexcept { lock_.lock(); }
    void unlock() noexcept { lock_.unlock(); }

    // With no concurrent callers: is the slab somebody's; nullptr or what is wrong.
    bool is_taken(SlabIndex slab) const noexcept;
    const char* validate() const;

  private:
    // Where a chunk with free slabs is listed, in the order in which small slabs are looked for.
    enum List : std::uint8_t { unlisted, partial_dirty, whole_dirty, partial_clean, whole_clean, list_count };
    using ChunkIndex = std::uint32_t;
    using Mask = std::uint8_t;  // a bit per slab of a chunk

    struct Chunk {
        ChunkIndex previous, next;  // plus one; 0 ends
        Mask taken, dirty, discarding;
        List list;
    };
    struct Discard {
        ChunkIndex chunk;
        Mask slabs;
        bool done;
    };
    static constexpr std::size_t trim_chunks_max = 64;

    static Mask free_slabs(const Chunk& chunk) noexcept;
    static List list_for(const Chunk& chunk) noexcept;
    void relist(ChunkIndex index) noexcept;
    void unlink(Chunk& chunk) noexcept;
    bool open_chunk() noexcept;
    ChunkIndex find(bool large) noexcept;
    bool claim(Chunk& chunk, Mask slabs) noexcept;
    std::size_t begin_discards(Discard* batch) noexcept;
    std::size_t finish_discards(const Discard* batch, std::size_t count) noexcept;
    bool discard(const Discard& entry) noexcept;

    Region& region_;
    const SlabIndex slab_count_;
    const ChunkIndex chunk_count_;
    LazyArray<Chunk> chunks_;
    SpinLock lock_;
    // All below and the chunks: under lock_. Chunks from chunks_opened_ on have never been used.
    ChunkIndex chunks_opened_ = 0;
    ChunkIndex heads_[list_count] = {};             // plus one; 0 is empty
    std::atomic<std::uint64_t> physical_bytes_{0};  // written under lock_, read without
};

}  // namespace pnode::cxl
