// The sizes of slots, computed at compile time, and how large a slab each has.
//
// A size is a slab's size divided by a whole number and rounded down to 16, so that a slab has next to no
// tail. Two things cost: slack, half of what a size is above its neighbour, in every slot; and half a slab of
// each size that is only partly filled, which is what counts while a store is small. So neighbours are about
// 8 % apart (slack is under 4 % of a spread of blobs), and each size has the smallest slab that divides that
// finely: 8 to 32 KiB for the blobs of pages. Slots above 8 KiB have coarser sizes,
// and a slab is a whole chunk of 512 KiB.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace pnode::cxl {

inline constexpr std::size_t unit_bytes = 16;  // of BlobRef
inline constexpr std::size_t part_bytes = 8 * 1024;
inline constexpr std::uint32_t parts_per_chunk = 64;
inline constexpr std::size_t chunk_bytes = part_bytes * parts_per_chunk;
inline constexpr std::size_t slot_bytes_min = 64;
inline constexpr std::size_t small_slot_bytes_max = 8192;
inline constexpr std::size_t slots_per_slab_max = part_bytes / slot_bytes_min;
inline constexpr std::size_t slots_per_slab_min = 4;  // fewer would cost more in tables than they save

struct SlotSize {
    std::uint32_t bytes;
    std::uint16_t slots;  // in one slab
    std::uint8_t parts;   // of one slab: 1, 2, 4, 8, or a chunk's 64
};

// Class 0 is no class: a slab that belongs to nobody.
struct SizeClasses {
    std::array<SlotSize, 128> slot{};
    std::size_t count = 1;
    std::array<std::uint8_t, 8192> by_units{};  // smallest class that holds so many units

    constexpr const SlotSize& last() const { return slot[count - 1]; }
};

namespace detail {

// The largest slot above `bytes` and up to `wanted` that divides such a slab, or else the next larger.
constexpr SlotSize divide_slab(std::uint8_t parts, std::uint32_t bytes, std::uint32_t wanted) {
    SlotSize found{};
    for (std::size_t slots = parts * part_bytes / (bytes + 1); slots > 0; --slots) {
        const auto candidate =
            static_cast<std::uint32_t>(parts * part_bytes / slots / unit_bytes * unit_bytes);
        if (candidate <= bytes) continue;
        if (found.bytes != 0 && candidate > wanted) break;
        found = {candidate, static_cast<std::uint16_t>(slots), parts};
    }
    return found;
}

// The size after `bytes`: 8 % more, give or take half of that for the sake of a smaller slab.
constexpr SlotSize next_size(std::uint32_t bytes) {
    const std::uint32_t step = bytes * 8 / 100 > unit_bytes ? bytes * 8 / 100 : unit_bytes;
    const std::uint32_t wanted = bytes + step;
    if (bytes >= small_slot_bytes_max) return divide_slab(parts_per_chunk, bytes, wanted);
    SlotSize best{};
    std::uint32_t best_distance = UINT32_MAX;
    for (std::uint8_t parts = 1; parts <= 8 && best_distance > step / 2; parts *= 2) {
        const SlotSize size = divide_slab(parts, bytes, wanted);
        if (size.slots < slots_per_slab_min) continue;
        const std::uint32_t distance = size.bytes > wanted ? size.bytes - wanted : wanted - size.bytes;
        if (distance >= best_distance) continue;
        best = size;
        best_distance = distance;
    }
    return best;
}

constexpr SizeClasses make_size_classes(std::size_t bytes_max) {
    SizeClasses classes;
    classes.slot[classes.count++] = {slot_bytes_min, slots_per_slab_max, 1};
    while (classes.last().bytes < bytes_max) {
        const SlotSize next = next_size(classes.last().bytes);
        classes.slot[classes.count++] = next;
    }
    std::size_t index = 1;
    for (std::size_t units = 0; units < classes.by_units.size(); ++units) {
        while (index < classes.count && classes.slot[index].bytes < units * unit_bytes) ++index;
        classes.by_units[units] = static_cast<std::uint8_t>(index);
    }
    return classes;
}

}  // namespace detail

}  // namespace pnode::cxl
