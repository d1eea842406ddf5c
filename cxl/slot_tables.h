// The tables of a slab's slots: which are occupied, which a lease covers, which were freed under one, and how
// many bytes of each the blob does not use. A slab takes a block of tables when it takes a class and gives it
// back when it is empty.
//
// Blocks come in a few sizes from lazy arrays, so that tables cost what the blobs alive need (about 0.2 % of
// typical blobs), not what the smallest slots would need everywhere.
//
// Thread rule: take() and give() by any thread, one short spin lock; a block's contents belong to its slab.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "cxl/size_classes.h"
#include "cxl/spin_lock.h"
#include "cxl/unmanaged.h"

namespace pnode::cxl {

using TableIndex = std::uint32_t;

// Three bitmaps and a number per slot.
constexpr std::size_t slot_table_words(std::size_t slots) {
    return (slots + 63) / 64;
}
constexpr std::size_t slot_table_bytes(std::size_t slots) {
    return 3 * 8 * slot_table_words(slots) + 2 * slots;
}

class SlotTables {
  public:
    // Views of one block for a slab of `slots` slots.
    struct View {
        std::uint64_t* occupied;
        std::uint64_t* leased;
        std::uint64_t* deferred;
        std::uint16_t* slack_bytes;
    };

    static constexpr std::size_t words(std::size_t slots) { return slot_table_words(slots); }

    explicit SlotTables(std::size_t slab_count)
        : blocks_{LazyArray<std::byte>(slab_count * block_bytes[0]),
                  LazyArray<std::byte>(slab_count * block_bytes[1]),
                  LazyArray<std::byte>(slab_count * block_bytes[2]),
                  LazyArray<std::byte>(slab_count * block_bytes[3]),
                  LazyArray<std::byte>(slab_count * block_bytes[4]),
                  LazyArray<std::byte>(slab_count * block_bytes[5])} {}

    // A block with nothing occupied. There is one for every slab, so this cannot fail.
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
        std::fill_n(at(index, slots).occupied, 3 * words(slots), 0);
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
        auto* const first = reinterpret_cast<std::uint64_t*>(block(kind_for(slots), index));
        return {first, first + count, first + 2 * count, reinterpret_cast<std::uint16_t*>(first + 3 * count)};
    }

    void lock() noexcept { lock_.lock(); }
    void unlock() noexcept { lock_.unlock(); }

  private:
    static constexpr std::size_t kinds = 6;
    static constexpr std::array<std::size_t, kinds> block_bytes = {
        64, 128, 256, 512, 1024, slot_table_bytes(slots_per_slab_max)};

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
