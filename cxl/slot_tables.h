// What is known of a slab: its place in its class's lists, which of its slots are occupied, which a lease
// covers, which were freed under one, and how many bytes of each the blob does not use. A slab takes a block
// of tables when it takes a class and gives it back when it is empty.
//
// Blocks come in a few sizes from lazy arrays, so that tables cost what the blobs alive need (some 0.4 % of
// typical blobs), not what the smallest slots would need everywhere.
//
// Thread rule: take() and give() by any thread, one short spin lock; a block's contents belong to its slab.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "cxl/size_classes.h"
#include "cxl/slab_pool.h"
#include "cxl/spin_lock.h"
#include "cxl/unmanaged.h"

namespace pnode::cxl {

using TableIndex = std::uint32_t;

// The head of a block.
struct Slab {
    SlabIndex previous, next;   // in the class's list of slabs with a free slot, or of sparse ones
    SlabIndex next_deferred;    // in the class's list of slabs with slots freed under a lease
    std::uint32_t lease_epoch;  // the last lease that `leased` takes into account
    std::uint16_t occupied;     // slots, deferred ones included
    std::uint16_t deferred;     // slots freed under a lease
    std::uint16_t first_word;   // no free slot in the words of `occupied` before this
    std::uint16_t quarantined;  // 1: in no list, takes nothing, is never given back
};

// The head, three bitmaps and a number per slot.
constexpr std::size_t slot_table_words(std::size_t slots) {
    return (slots + 63) / 64;
}
constexpr std::size_t slot_table_bytes(std::size_t slots) {
    return sizeof(Slab) + 3 * 8 * slot_table_words(slots) + 2 * slots;
}

class SlotTables {
  public:
    // Views of one block for a slab of `slots` slots. Passed by reference: copying what was just written, in
    // larger words, stalls for longer than an allocation takes.
    struct View {
        Slab* slab;
        std::uint64_t* occupied;
        std::uint64_t* leased;
        std::uint64_t* deferred;
        std::uint16_t* slack_bytes;
    };

    static constexpr std::size_t words(std::size_t slots) { return slot_table_words(slots); }

    explicit SlotTables(std::size_t part_count)
        : blocks_{LazyArray<std::byte>(part_count * block_bytes[0]),
                  LazyArray<std::byte>(part_count * block_bytes[1]),
                  LazyArray<std::byte>(part_count * block_bytes[2]),
                  LazyArray<std::byte>(part_count * block_bytes[3]),
                  LazyArray<std::byte>(part_count * block_bytes[4])} {}

    // A block with nothing occupied. There is one for every part, so this cannot fail.
    TableIndex take(std::size_t slots) noexcept {
        const std::size_t kind = kind_for(slots);
        lock_.lock();
        TableIndex index = free_[kind];
        if (index != 0) {
            free_[kind] = link(kind, index);
        } else {
            index = ++used_[kind];
        }
        lock_.unlock();
        const View view = at(index, slots);
        *view.slab = {};
        std::fill_n(view.occupied, 3 * words(slots), 0);
        return index;
    }

    void give(TableIndex index, std::size_t slots) noexcept {
        const std::size_t kind = kind_for(slots);
        lock_.lock();
        link(kind, index) = free_[kind];
        free_[kind] = index;
        lock_.unlock();
    }

    View at(TableIndex index, std::size_t slots) const noexcept {
        const std::size_t count = words(slots);
        std::byte* const head = block(kind_for(slots), index);
        auto* const first = reinterpret_cast<std::uint64_t*>(head + sizeof(Slab));
        return {reinterpret_cast<Slab*>(head), first, first + count, first + 2 * count,
                reinterpret_cast<std::uint16_t*>(first + 3 * count)};
    }

    void lock() noexcept { lock_.lock(); }
    void unlock() noexcept { lock_.unlock(); }

  private:
    // For up to 4, 12, 20, 52 slots, and for the most.
    static constexpr std::size_t kinds = 5;
    static constexpr std::array<std::size_t, kinds> block_bytes = {slot_table_bytes(4), slot_table_bytes(12),
                                                                   slot_table_bytes(20), slot_table_bytes(52),
                                                                   slot_table_bytes(slots_per_slab_max)};
    static_assert(sizeof(Slab) % 8 == 0 && slot_table_bytes(slots_per_slab_max) % 8 == 0);

    static constexpr std::size_t kind_for(std::size_t slots) {
        std::size_t kind = 0;
        while (block_bytes[kind] < slot_table_bytes(slots)) ++kind;
        return kind;
    }
    std::byte* block(std::size_t kind, TableIndex index) const noexcept {
        return const_cast<std::byte*>(&blocks_[kind][(index - 1) * block_bytes[kind]]);
    }
    TableIndex& link(std::size_t kind, TableIndex index) noexcept {
        return *reinterpret_cast<TableIndex*>(block(kind, index));
    }

    std::array<LazyArray<std::byte>, kinds> blocks_;
    SpinLock lock_;
    // Under lock_. Indices count from one; 0 ends a list, whose links are the free blocks' first words.
    std::array<TableIndex, kinds> free_{};
    std::array<TableIndex, kinds> used_{};
};

}  // namespace pnode::cxl
