// The allocator of blobs inside a region.
//
// The region is cut into slabs; a slab holds slots of one size class. All metadata is in ordinary private
// memory, never in the region (CONTRACT.md C05), so that fork snapshots it, and no byte of the region is
// trusted.
//
// Thread rule: allocate(), free() and the counters may be called by any thread at once; they take short spin
// locks, so a caller that can be interrupted by a signal handler which faults must block signals around them
// (runtime/os/signals_blocked.h). Nothing here allocates after construction, throws, or touches application
// memory.
//
// Fork: the metadata is private and the region is shared. In the child, the store it inherited is read-only:
// bytes() only. The parent holds a lease while such a child lives: see lease_all().
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "cxl/region.h"

namespace pnode::cxl {

// A place in a store: a count of 16-byte units from the region's first byte plus one, at most 36 bits; 0 is
// no blob.
using BlobRef = std::uint64_t;
inline constexpr BlobRef no_blob = 0;
inline constexpr int blob_ref_bits = 36;

struct StoreCounters {
    std::uint64_t physical_bytes;  // what the region may hold: slabs taken, and freed ones until trim()
                                   // discards them, whole
    std::uint64_t blob_bytes;      // bytes asked for by the blobs alive
    std::uint64_t slot_bytes;      // bytes of the slots those blobs occupy
    std::uint64_t blobs;
    std::uint64_t leased_blobs;  // freed, but kept for a child that may read them
};

class BlobStore {
  public:
    // Blobs up to 64 KiB + header.
    static constexpr std::size_t blob_bytes_max = 65536 + 64;
    // The least a region must have to hold a blob; those over 8 KiB need eight times that.
    static constexpr std::size_t region_bytes_min = 64 * 1024;
    // What a BlobRef can name; more of a region is not used.
    static constexpr std::size_t region_bytes_max = std::size_t{1} << (blob_ref_bits + 4);

    // `physical_bytes_max` (0: the region's size) bounds physical_bytes. The region must outlive the store,
    // and its bytes be zero or nobody's secret. Throws std::bad_alloc when the tables cannot be mapped: they
    // are lazy, 5.6 KB of address space per 64 KiB of region.
    explicit BlobStore(Region& region, std::size_t physical_bytes_max = 0);
    ~BlobStore();
    BlobStore(const BlobStore&) = delete;
    BlobStore& operator=(const BlobStore&) = delete;

    // A slot of at least `bytes` (1 to blob_bytes_max), or no_blob: full, or `bytes` out of range. The
    // contents are unspecified. When nothing is left it trims once itself, so that slabs freed by blobs of
    // another size are found again.
    BlobRef allocate(std::size_t bytes) noexcept;

    // The slot is scrubbed (zeroed) at once, in the caller's cache and for the price of a queue's entry, and
    // is free for the next; under a lease that covers it, only when
    // the lease ends. An empty slab becomes free, and is discarded by the next trim(). A reference to no blob
    // alive ends the process with a message.
    void free(BlobRef ref) noexcept;

    // The whole slot. Valid until free(); one load of slab metadata, no lock.
    std::span<std::byte> bytes(BlobRef ref) const noexcept;

    // Copies a blob into its slot. False: a line there is bad; the slot is to be quarantined, not freed.
    bool write(BlobRef ref, std::span<const std::byte> blob) noexcept;

    // Room that its owner uses in place: whole slabs, zeroed, at a multiple of 4 KiB, of at least `bytes`.
    // null: full. give_direct() scrubs and frees what take_direct() returned; false, and nothing is done, for
    // any other address.
    std::byte* take_direct(std::size_t bytes) noexcept;
    bool give_direct(std::byte* address) noexcept;
    std::uint64_t direct_bytes() const noexcept;
    std::uint64_t direct_buffers() const noexcept;

    // Nothing is placed any more in slabs that reach into [offset, offset + length), which went bad. What is
    // there stays readable, and is never given back.
    void quarantine(std::size_t offset, std::size_t length) noexcept;
    std::uint64_t quarantined_bytes() const noexcept;

    // Clears every slab that may hold anything. With no concurrent callers and no lease: the store is of no
    // use afterwards.
    void wipe() noexcept;
    bool is_leased() const noexcept;

    // What a blob of so many bytes would occupy; 0 when out of range.
    static std::size_t slot_bytes_for(std::size_t bytes) noexcept;

    // Gives free slabs back to the region's owner; at most 32 MiB a call, not for the fault path. Returns
    // bytes discarded: 0 when nothing is free or the region's owner refuses. Slabs on their way are free for
    // nobody.
    std::size_t trim() noexcept;

    // Packing: slabs that hold few blobs are emptied by moving those, so that they can be given back. One
    // thread packs.
    // What slots that are free take in slabs that have been begun: more than packing can gain. Walks nothing.
    std::uint64_t free_slot_bytes() const noexcept;
    struct Marking {
        std::uint64_t bytes = 0;  // of the slabs marked so far
        // Where it goes on, and free slots of each size that nothing was promised yet.
        unsigned size = 0;
        std::uint32_t slabs_left = 0;
        std::array<std::uint32_t, 128> room{};
    };
    // Marks slabs whose blobs have room elsewhere, in slabs of their size or of somewhat larger ones; what is
    // placed goes into others as long as those have room. A bounded piece, from where `marking` says on,
    // which begins as {}. True: there is more. Nothing under a lease, for what moves would be there twice.
    bool mark_sparse(Marking* marking) noexcept;
    // True for a blob in a marked slab; of a reference to what was freed meanwhile, either. Two loads.
    bool is_in_sparse(BlobRef ref) const noexcept;
    // A slot for a copy of this blob in a slab that is not marked and has one free. no_blob: there is none.
    BlobRef allocate_elsewhere(BlobRef ref) noexcept;
    // What is still marked is a slab like any other again. A bounded piece. True: there is more.
    bool unmark_sparse() noexcept;

    // Every blob alive now stays as it is, freed or not, until end_lease() (leases nest by count: several
    // children). A lease costs a few instructions now and a copy of a slab's bitmap at the first change of
    // that slab afterwards. A blob whose free() has begun is not alive. The last end_lease() scrubs and frees
    // what was deferred, slab by slab.
    void lease_all() noexcept;
    void end_lease() noexcept;

    // fork(): held by the parent's atfork handlers so that the child's copy of the metadata is consistent.
    // lease_all_locked() is lease_all() between these two, so that nothing comes and goes between lease and
    // fork. The child does not unlock: it only calls bytes(), which takes no lock.
    void lock_all() noexcept;
    void lease_all_locked() noexcept;
    void unlock_all() noexcept;

    // 0: the region's size. When lowered below physical_bytes(), no further slab is taken until trim() or
    // frees have brought it down.
    void set_physical_bytes_max(std::size_t bytes) noexcept;
    std::size_t physical_bytes_max() const noexcept;
    // Without a lock: each number is true for itself, all of them together only when nobody allocates or
    // frees.
    StoreCounters counters() const noexcept;
    std::uint64_t physical_bytes() const noexcept;  // one relaxed load

    // Walks everything; nullptr when sound, else what is wrong. For tests and debug builds, with no
    // concurrent callers.
    const char* validate() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace pnode::cxl
