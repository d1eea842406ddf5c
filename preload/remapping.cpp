// mremap(2) where one of its ends is in the heap.
#include <cerrno>
#include <cstring>

#include "preload/kernel_calls.h"
#include "preload/mapping_parts.h"
#include "preload/mappings.h"

namespace pnode::preload {
namespace {

constexpr int dont_unmap = 4;  // MREMAP_DONTUNMAP (5.7)
constexpr int read_write = PROT_READ | PROT_WRITE;

struct Remap {
    Range old;
    std::size_t bytes;  // of the new mapping, whole pages
    int flags;
    Address target;  // with MREMAP_FIXED
    pn_extent_t extent;
    bool keeps_old() const noexcept { return (flags & dont_unmap) != 0; }
    bool is_fixed() const noexcept { return (flags & MREMAP_FIXED) != 0; }
    bool only_shrinks() const noexcept { return !is_fixed() && !keeps_old() && bytes <= old.bytes(); }
    bool may_move() const noexcept { return (flags & MREMAP_MAYMOVE) != 0; }
    std::size_t kept_bytes() const noexcept { return bytes < old.bytes() ? bytes : old.bytes(); }
};

// What the kernel refuses before it looks at a mapping: it says so best itself.
bool is_refused(Address address, std::size_t old_bytes, std::size_t new_bytes, int flags,
                Address target) noexcept {
    Range old;
    Range wanted;
    if ((flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | dont_unmap)) != 0) return true;
    if ((flags & (MREMAP_FIXED | dont_unmap)) != 0 && (flags & MREMAP_MAYMOVE) == 0) return true;
    if (!whole_pages(address, old_bytes, &old)) return true;
    const bool fixed = (flags & MREMAP_FIXED) != 0;
    if (!whole_pages(fixed ? target : 0, new_bytes, &wanted)) return true;
    if ((flags & dont_unmap) != 0 && old.bytes() != wanted.bytes()) return true;
    return fixed && old.touches(wanted);
}

// Where notes differ there are several mappings to the kernel.
bool has_equal_notes(Range range) noexcept {
    if (!range.touches(noted_range())) return true;
    const std::uint8_t notes = notes_of(range.first);
    for (Address page = range.first; page < range.end; page += PN_PAGE_BYTES) {
        if (notes_of(page) != notes) return false;
    }
    return true;
}

// One mapping or several: the kernel looks at the first page alone.
long shrink(const Remap& remap) noexcept {
    const int error = unmap_pages({remap.old.first + remap.bytes, remap.old.end});
    return error != 0 ? -error : static_cast<long>(remap.old.first);
}

// The notes go along, and the kernel's and our locks with them.
std::uint8_t take_notes(Range old) noexcept {
    const std::uint8_t notes = notes_of(old.first);
    forget_notes(old, all_notes);
    return notes;
}

void give_notes(Range range, std::uint8_t notes) noexcept {
    if ((notes & note_locked) != 0) lock_pages(range, 0);  // as in the kernel, what cannot be locked is not
    notes &= static_cast<std::uint8_t>(~note_locked);
    if (notes != 0) set_notes(range, notes, notes);
    if ((notes & note_not_dumped) != 0) kernel::advise(range.first, range.bytes(), MADV_DONTDUMP);
}

// A new place in the heap; the target's former contents are gone then, as they are in the kernel.
int place(const Remap& remap, Range* placed) noexcept {
    pn_heap* const heap = heap_served();
    void* start = reinterpret_cast<void*>(remap.target);
    int error = 0;
    if (remap.is_fixed()) {
        error = unmap_pages({remap.target, remap.target + remap.bytes});
        if (error == 0) error = pn_buffer_alloc_at(heap, start, remap.bytes, 0);
    } else {
        error = pn_buffer_alloc(heap, remap.bytes, 0, &start);
    }
    *placed = {reinterpret_cast<Address>(start), reinterpret_cast<Address>(start) + remap.bytes};
    return error;
}

// What stays mapped there is all that it was but locked.
void leave_old(const Remap& remap, std::uint8_t notes) noexcept {
    pn_heap* const heap = heap_served();
    if (!remap.keeps_old()) {
        unmap_pages(remap.old);
        return;
    }
    pn_protect(heap, at(remap.old), remap.old.bytes(), remap.extent.protection);
    give_notes(remap.old, notes & static_cast<std::uint8_t>(~note_locked));
}

long move_within_heap(const Remap& remap) noexcept {
    pn_heap* const heap = heap_served();
    const std::uint8_t notes = take_notes(remap.old);
    Range placed;
    int error = place(remap, &placed);
    if (error == 0) {
        error = pn_protect(heap, at(remap.old), remap.old.bytes(), read_write);
        if (error == 0) error = pn_relocate(heap, at(remap.old), at(placed), remap.kept_bytes());
        if (error == 0) error = pn_protect(heap, at(placed), placed.bytes(), remap.extent.protection);
        if (error != 0) unmap_pages(placed);
    }
    if (error != 0) {
        pn_protect(heap, at(remap.old), remap.old.bytes(), remap.extent.protection);
        give_notes(remap.old, notes);
        return -ENOMEM;
    }
    leave_old(remap, notes);
    give_notes(placed, notes);
    return static_cast<long>(placed.first);
}

// Out of the heap, to an address that only a kernel mapping can have: copied, and unmanaged from now on.
long move_out_of_heap(const Remap& remap) noexcept {
    pn_heap* const heap = heap_served();
    const Range target{remap.target, remap.target + remap.bytes};
    if (target.touches(heap_range())) return -ENOMEM;  // half in the heap
    const long mapped =
        kernel::map(target.first, target.bytes(), read_write, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (kernel::failed(mapped)) return mapped;
    if (const int error = pn_protect(heap, at(remap.old), remap.old.bytes(), read_write)) return -error;
    std::memcpy(at(target), at(remap.old), remap.kept_bytes());
    kernel::protect(target.first, target.bytes(), remap.extent.protection);
    const std::uint8_t notes = take_notes(remap.old);
    if (remap.keeps_old()) pn_release(heap, at(remap.old), remap.old.bytes());
    leave_old(remap, notes);
    return mapped;
}

// In place where the addresses behind are free.
bool grow_in_place(const Remap& remap) noexcept {
    pn_heap* const heap = heap_served();
    const Range more{remap.old.end, remap.old.first + remap.bytes};
    const bool reserved = remap.extent.protection == PROT_NONE;
    if (more.within(heap_range()).bytes() != more.bytes() ||
        pn_buffer_alloc_at(heap, at(more), more.bytes(), reserved ? PN_RESERVED : 0) != 0)
        return false;
    if (!reserved && pn_protect(heap, at(more), more.bytes(), remap.extent.protection) != 0) {
        unmap_pages(more);
        return false;
    }
    give_notes(more, notes_of(remap.old.first));
    return true;
}

long remap_buffer(const Remap& remap) noexcept {
    if (remap.is_fixed()) {
        const Range target{remap.target, remap.target + remap.bytes};
        const bool stays = target.within(heap_range()).bytes() == target.bytes();
        return stays ? move_within_heap(remap) : move_out_of_heap(remap);
    }
    if (remap.keeps_old()) return move_within_heap(remap);
    if (grow_in_place(remap)) return static_cast<long>(remap.old.first);
    return remap.may_move() ? move_within_heap(remap) : -ENOMEM;
}

// The kernel's own mapping over our addresses leaves them: they must not stay a hole in which it puts
// another.
void close_hole(Range hole) noexcept {
    constexpr int only_if_empty = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    // Lost to a mapping that was quicker, they stay handed out, until that is unmapped.
    const long mapped = kernel::map(hole.first, hole.bytes(), PROT_NONE, only_if_empty, -1, 0);
    if (!kernel::failed(mapped)) unmap_pages(hole);
}

// Where the addresses behind are free, the kernel must find a hole there.
bool grow_foreign_in_place(const Remap& remap, std::size_t old_bytes, std::size_t new_bytes) noexcept {
    const Range more{remap.old.end, remap.old.first + remap.bytes};
    if (more.within(heap_range()).bytes() != more.bytes() ||
        pn_buffer_alloc_at(heap_served(), at(more), more.bytes(), PN_RESERVED) != 0)
        return false;
    if (hand_out_pages(more) != 0 || kernel::failed(kernel::unmap(more.first, more.bytes()))) {
        unmap_pages(more);
        return false;
    }
    const bool grown = !kernel::failed(kernel::remap(remap.old.first, old_bytes, new_bytes, 0, 0));
    if (!grown) close_hole(more);
    return grown;
}

long remap_foreign(const Remap& remap, std::size_t old_bytes, std::size_t new_bytes) noexcept {
    if (!remap.is_fixed() && !remap.keeps_old() && grow_foreign_in_place(remap, old_bytes, new_bytes))
        return static_cast<long>(remap.old.first);
    const Range target = Range{remap.target, remap.target + remap.bytes}.within(heap_range());
    if (remap.is_fixed() && !target.is_empty()) {
        if (const int error = hand_out_pages(target)) return -error;
    }
    const long mapped = kernel::remap(remap.old.first, old_bytes, new_bytes, remap.flags, remap.target);
    const Range ours = remap.old.within(heap_range());
    if (!kernel::failed(mapped) && !remap.keeps_old() && !ours.is_empty()) close_hole(ours);
    if (kernel::failed(mapped) && remap.is_fixed() && !target.is_empty()) unmap_pages(target);
    return mapped;
}

}  // namespace

long mapping_remap(Address address, std::size_t old_bytes, std::size_t new_bytes, int flags,
                   Address target) noexcept {
    if (heap_range().is_empty() || is_refused(address, old_bytes, new_bytes, flags, target))
        return kernel::remap(address, old_bytes, new_bytes, flags, target);
    Remap remap{{}, (new_bytes + page_mask) & ~page_mask, flags, target, {}};
    whole_pages(address, old_bytes, &remap.old);
    const Range heap = heap_range();
    const bool from_heap = remap.old.touches(heap);
    const bool to_heap = remap.is_fixed() && Range{target, target + remap.bytes}.touches(heap);
    if (!from_heap && !to_heap) return kernel::remap(address, old_bytes, new_bytes, flags, target);
    if (is_inside_runtime()) return -ENOMEM;
    const MappingFrame frame;
    if (!from_heap) return remap_foreign(remap, old_bytes, new_bytes);
    if (remap.old.within(heap).bytes() != remap.old.bytes() ||
        pn_extent(heap_served(), at(remap.old), remap.old.bytes(), &remap.extent) != 0 ||
        remap.extent.kind == PN_EXTENT_FREE)
        return -EFAULT;
    if (remap.only_shrinks()) return shrink(remap);
    // More than one mapping.
    if (remap.extent.bytes != remap.old.bytes() || !has_equal_notes(remap.old)) return -EFAULT;
    return remap.extent.kind == PN_EXTENT_BUFFER ? remap_buffer(remap)
                                                 : remap_foreign(remap, old_bytes, new_bytes);
}

}  // namespace pnode::preload
