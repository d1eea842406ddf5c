// Ranges of addresses, and what the heap has in them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pnode/pnode.h"

namespace pnode::preload {

using Address = std::uintptr_t;

struct Range {
    Address first = 0;
    Address end = 0;
    bool is_empty() const noexcept { return first >= end; }
    std::size_t bytes() const noexcept { return end - first; }
    Range within(Range other) const noexcept {
        const Range both{first > other.first ? first : other.first, end < other.end ? end : other.end};
        return both.is_empty() ? Range{} : both;
    }
    bool touches(Range other) const noexcept { return !within(other).is_empty(); }
};

inline void* at(Range range) noexcept {
    return reinterpret_cast<void*>(range.first);
}

// visit(range, pn_extent_t) for each part of `range`, which is in the heap, in order, until one says no:
// that, or that the heap did, is false. By whoever keeps others from changing it: with the frame
// (mapping_state.h), or of what jemalloc has.
template <class Visit>
bool for_each_extent(pn_heap* heap, Range range, Visit visit) noexcept {
    while (!range.is_empty()) {
        pn_extent_t extent;
        if (pn_extent(heap, reinterpret_cast<void*>(range.first), range.bytes(), &extent) != 0) return false;
        const Range part{range.first, range.first + extent.bytes};
        if (!visit(part, extent)) return false;
        range.first = part.end;
    }
    return true;
}

}  // namespace pnode::preload
