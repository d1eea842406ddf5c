// The sizes of slots, computed at compile time.
//
// A size is a slab's size divided by a whole number and rounded down to 16, so that a slab has next to no
// tail; neighbours are about 7 % apart, which makes the slack of a spread of blobs about 3.5 %. Denser
// classes would save slack and lose as much again in slabs that are partly filled. Slots up to 8 KiB live in
// slabs of 64 KiB; above that so few would fit that the sizes get coarse, and a slab is a whole chunk of 512
// KiB.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace pnode::cxl {

inline constexpr std::size_t unit_bytes = 16;  // of BlobRef
inline constexpr std::size_t small_slab_bytes = 64 * 1024;
inline constexpr std::uint32_t slabs_per_chunk = 8;
inline constexpr std::size_t chunk_bytes = small_slab_bytes * slabs_per_chunk;
inline constexpr std::size_t slot_bytes_min = 64;
inline constexpr std::size_t small_slot_bytes_max = 8192;
inline constexpr std::size_t slots_per_slab_max = small_slab_bytes / slot_bytes_min;

struct SlotSize {
    std::uint32_t bytes;
    std::uint16_t slots;  // in one slab
    bool large;           // the slab is a chunk
};

// Class 0 is no class: a slab that belongs to nobody.
struct SizeClasses {
    std::array<SlotSize, 128> slot{};
    std::size_t count = 1;
    std::array<std::uint8_t, 8192> by_units{};  // smallest class that holds so many units

    constexpr const SlotSize& last() const { return slot[count - 1]; }
};

namespace detail {

constexpr std::uint32_t slot_bytes_of(std::size_t slab_bytes, std::size_t slots) {
    return static_cast<std::uint32_t>(slab_bytes / slots / unit_bytes * unit_bytes);
}

// The size after `bytes`: the largest that is at most 7 % larger, or else the next larger there is.
constexpr SlotSize next_size(std::uint32_t bytes, std::size_t slab_bytes) {
    SlotSize found{};
    for (std::size_t slots = slab_bytes / (bytes + 1); slots > 0; --slots) {
        const std::uint32_t candidate = slot_bytes_of(slab_bytes, slots);
        if (candidate <= bytes) continue;
        if (found.bytes != 0 && candidate * 100ull > bytes * 107ull) break;
        found = {candidate, static_cast<std::uint16_t>(slots), slab_bytes == chunk_bytes};
    }
    return found;
}

constexpr SizeClasses make_size_classes(std::size_t bytes_max) {
    SizeClasses classes;
    classes.slot[classes.count++] = {slot_bytes_min, slots_per_slab_max, false};
    while (classes.last().bytes < bytes_max) {
        const bool large = classes.last().bytes >= small_slot_bytes_max;
        const SlotSize next = next_size(classes.last().bytes, large ? chunk_bytes : small_slab_bytes);
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
