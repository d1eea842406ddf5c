// Steps that several mapping calls consist of. All but one with the frame, on ranges within the heap.
#pragma once

#include "preload/hooks.h"
#include "preload/mapping_state.h"

namespace pnode::preload {

// munmap(2): what was there is gone, and an access ends as it should. 0 or an errno.
int unmap_pages(Range range) noexcept;

// Every page becomes handed out, whatever it was. 0 or an errno, and then some may be.
int hand_out_pages(Range range) noexcept;

// Every page becomes handed out with its contents: somebody else watches it from now on. 0 or an errno, and
// then some may be.
int lend_pages(Range range) noexcept;

// What was lent is gone, but for its addresses. The kernel tells who watches it, if he wants to know, and
// waits until he has heard of it: so without the frame, which he may want first.
void vacate_lent_pages(Range range) noexcept;

// Notes become what the kernel knows of the pages: it does alone for them what we did with it.
void give_notes_to_kernel(Range range) noexcept;

// Pinned pages are let go, and the notes of `mask` forgotten.
void forget_notes(Range range, std::uint8_t mask) noexcept;
inline constexpr std::uint8_t all_notes = 0xff;

// Are mappings the heap's, not allocations alone?
bool captures_mappings() noexcept;

// madvise(2) with MADV_POPULATE_READ or MADV_POPULATE_WRITE, as the kernel gives it. Without the frame, and
// of any addresses.
long populate_pages(Range range, int advice) noexcept;

// 0 or an errno of mlock(2).
int lock_pages(Range range, int flags) noexcept;
void unlock_pages(Range range) noexcept;

}  // namespace pnode::preload
