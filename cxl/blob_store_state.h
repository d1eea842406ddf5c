// What a BlobStore is made of, for the files that it is written in: blob_store*.cpp, nobody else.
//
// Locks, in the order in which they may be held together: size classes by index, the slot tables' lock, the
// pool's lock.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cxl/blob_store.h"
#include "cxl/size_classes.h"
#include "cxl/slab_pool.h"
#include "cxl/slot_tables.h"
#include "cxl/spin_lock.h"
#include "cxl/unmanaged.h"

namespace pnode::cxl {

inline constexpr SizeClasses classes = detail::make_size_classes(BlobStore::blob_bytes_max);
static_assert(classes.count < 128 && classes.last().bytes >= BlobStore::blob_bytes_max);
static_assert(classes.by_units.size() * unit_bytes > BlobStore::blob_bytes_max);
static_assert(BlobStore::region_bytes_min == 8 * part_bytes);
static_assert(BlobStore::region_bytes_max == (std::size_t{1} << blob_ref_bits) * unit_bytes);

inline unsigned class_for(std::size_t bytes) {
    return classes.by_units[(bytes + unit_bytes - 1) / unit_bytes];
}
inline bool is_blob_size(std::size_t bytes) {
    return bytes != 0 && bytes <= BlobStore::blob_bytes_max;
}

// Ends the process: the caller broke a rule that the store cannot go on without.
[[noreturn]] void die(std::string_view message) noexcept;

inline bool has_bit(const std::uint64_t* words, unsigned bit) {
    return (words[bit / 64] >> (bit % 64) & 1) != 0;
}
inline void set_bit(std::uint64_t* words, unsigned bit) {
    words[bit / 64] |= std::uint64_t{1} << (bit % 64);
}
inline void clear_bit(std::uint64_t* words, unsigned bit) {
    words[bit / 64] &= ~(std::uint64_t{1} << (bit % 64));
}

// Written under a lock, read without: no read-modify-write is needed.
class Counter {
  public:
    void add(std::uint64_t n) noexcept { value_.store(get() + n, std::memory_order_relaxed); }
    void subtract(std::uint64_t n) noexcept { value_.store(get() - n, std::memory_order_relaxed); }
    std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

struct alignas(64) SizeClass {
    SpinLock lock;
    SlabIndex partial = no_slab;
    SlabIndex partial_last = no_slab;
    SlabIndex sparse = no_slab;
    SlabIndex with_deferred = no_slab;
    std::uint32_t partial_slabs = 0;
    Counter blobs, blob_bytes, leased_blobs, free_slots;
};

struct BlobStore::State : Unmanaged {
    State(Region& region_, std::size_t region_bytes)
        : region(region_),
          base(region_.bytes()),
          pool(region_, region_bytes),
          tables(pool.part_count()),
          tables_of(pool.part_count()),
          class_of(pool.part_count()),
          sparse(pool.part_count()),
          direct_parts(pool.part_count()) {}

    struct Place {
        SlabIndex slab;
        unsigned class_index;
        unsigned slot;
    };

    // Under the lock of the slab's class, as all that is in it.
    SlotTables::View view(SlabIndex index, unsigned class_index) const {
        return tables.at(tables_of[index], classes.slot[class_index].slots);
    }
    Slab& slab_at(SlabIndex index, unsigned class_index) const { return *view(index, class_index).slab; }
    unsigned class_at(SlabIndex part) const { return class_of[part].load(std::memory_order_relaxed); }
    void set_class(SlabIndex index, unsigned parts, unsigned class_index);
    std::byte* slot_at(const Place& place) const {
        return base + place.slab * part_bytes +
               place.slot * std::size_t{classes.slot[place.class_index].bytes};
    }
    // What cannot be cleared can be read by nobody either.
    void scrub(const Place& place) const {
        region.clear(static_cast<std::size_t>(slot_at(place) - base), classes.slot[place.class_index].bytes);
    }

    Place locate(BlobRef ref) const;
    BlobRef allocate_in(unsigned class_index, std::size_t bytes);
    unsigned occupy_slot(const SlotTables::View& view);
    SlabIndex add_slab(unsigned class_index);
    void remove_slab(SlabIndex index, unsigned class_index);
    bool is_sparse(SlabIndex part) const { return sparse[part].load(std::memory_order_relaxed) != 0; }
    void set_sparse(SlabIndex index, unsigned class_index, bool is_sparse);
    void push(SlabIndex index, unsigned class_index);
    void push_last(SlabIndex index, unsigned class_index);
    void unlink(SlabIndex index, unsigned class_index);
    void mark(SlabIndex index, unsigned class_index, bool is_sparse);
    SlabIndex slab_with_room(unsigned class_index);
    BlobRef allocate_at(SlabIndex index, unsigned class_index, std::size_t bytes);
    std::uint32_t begun_slabs(unsigned class_index);
    std::size_t mark_some(Marking* marking);
    // As asked for; its class is locked.
    std::size_t bytes_of(const Place& place) const {
        return classes.slot[place.class_index].bytes -
               view(place.slab, place.class_index).slack_bytes[place.slot];
    }
    void settle_lease(const SlotTables::View& view, std::size_t words);
    bool defer_if_leased(const Place& place, const SlotTables::View& view);
    void vacate_slot(const Place& place, const SlotTables::View& view);
    void quarantine_slabs(unsigned class_index, SlabIndex first, SlabIndex end);
    bool free_deferred(unsigned class_index);
    const char* validate_slab(SlabIndex index, StoreCounters* sum) const;
    struct Listed {
        std::size_t partial = 0, sparse = 0, with_deferred = 0, free_slots = 0;
    };
    const char* validate_list(SlabIndex head, unsigned class_index, bool is_sparse, std::size_t slabs) const;
    const char* validate_lists(unsigned class_index, Listed listed) const;

    Region& region;
    std::byte* const base;
    SlabPool pool;
    SlotTables tables;
    LazyArray<TableIndex> tables_of;  // of each slab, under the lock of its class
    // The class of each part of 8 KiB, 0 for none; a byte each because bytes() reads nothing else. Written
    // under the class's lock; relaxed, because whoever holds a reference got it from somebody who had
    // allocated it.
    LazyArray<std::atomic<std::uint8_t>> class_of;
    // Is the part of a slab in its class's list of those that are being emptied? Written under the class's
    // lock; relaxed, because a walk over all blobs reads it for each, and whoever moves one looks again.
    LazyArray<std::atomic<std::uint8_t>> sparse;
    std::array<SizeClass, classes.count> by_class;

    // Direct buffers, under direct_lock: how many parts, at the first part of each.
    LazyArray<std::uint32_t> direct_parts;
    SpinLock direct_lock;
    Counter direct_bytes, direct_buffers;

    // Leases: written with all classes locked, read with any one locked (`leases` also without).
    std::atomic<std::uint32_t> leases{0};
    std::uint32_t lease_epoch = 0;        // counts lease_all()
    std::uint32_t first_lease_epoch = 0;  // of the oldest lease since there was none
};

}  // namespace pnode::cxl
