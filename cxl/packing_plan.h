// Which of a size's begun slabs are worth emptying: those whose blobs have room in the fuller ones, and the
// last one too where larger slots are free.
//
// What a size has of begun slabs is half a slab, on average, and many once other blobs have taken the place
// of most: after all of a small store was made anew, a twentieth of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>

#include "cxl/slab_pool.h"

namespace pnode::cxl {

struct BegunSlab {
    SlabIndex slab;
    std::uint32_t occupied;  // slots
};
// Looked at in one go, of one size.
inline constexpr std::size_t begun_slabs_max = 128;

struct PackingPlan {
    std::size_t kept;    // the first so many stay, the others are to be emptied
    std::uint32_t room;  // slots that are then free in those that stay
};

// Sorts `begun`, the fullest first. `larger`: free slots of sizes that could take these blobs, the nearest
// first; what is needed of them is taken off.
inline PackingPlan plan_packing(std::span<BegunSlab> begun, std::uint32_t slots_per_slab,
                                std::span<std::uint32_t> larger) noexcept {
    std::sort(begun.begin(), begun.end(),
              [](const BegunSlab& one, const BegunSlab& other) { return one.occupied > other.occupied; });
    std::uint32_t blobs = 0;
    for (const BegunSlab& slab : begun) blobs += slab.occupied;
    std::size_t kept = (blobs + slots_per_slab - 1) / slots_per_slab;
    if (kept == 0) return {0, 0};
    const auto capacity = [&] { return static_cast<std::uint32_t>(kept) * slots_per_slab; };
    std::uint32_t too_many = blobs - (capacity() - slots_per_slab);
    if (too_many > std::accumulate(larger.begin(), larger.end(), std::uint32_t{0}))
        return {kept, capacity() - blobs};
    for (std::uint32_t& free : larger) {
        const std::uint32_t taken = std::min(free, too_many);
        free -= taken;
        too_many -= taken;
    }
    return {kept - 1, 0};
}

}  // namespace pnode::cxl
