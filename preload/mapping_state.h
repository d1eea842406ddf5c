// What the mapping calls share: which addresses are the heap's, one lock, and notes on pages that the runtime
// has no use for.
//
// Thread rule: MappingFrame around everything that changes or reads mappings of the heap. One thread at a
// time has it, as the kernel lets one thread at a time change an address space. A holder has all signals
// blocked and is inside the runtime, errno is as it was afterwards; it waits for nobody who could want the
// frame.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "pnode/pnode.h"
#include "preload/extents.h"
#include "preload/thread_state.h"
#include "runtime/os/signals_blocked.h"

namespace pnode::preload {

inline constexpr std::size_t page_mask = PN_PAGE_BYTES - 1;

// Where the heap is; empty before mappings_serve().
Range heap_range() noexcept;

// `bytes` rounded up to pages from a page's address on. False where the kernel says EINVAL or ENOMEM by
// itself: then it is to be asked.
bool whole_pages(Address first, std::size_t bytes, Range* range) noexcept;

class MappingFrame {
  public:
    MappingFrame() noexcept;
    ~MappingFrame();
    MappingFrame(const MappingFrame&) = delete;
    MappingFrame& operator=(const MappingFrame&) = delete;

  private:
    const int errno_ = errno;
    const os::SignalsBlocked signals_;
    const InsideRuntime inside_;
};

// The same lock, over a fork.
void mappings_hold() noexcept;
void mappings_let_go() noexcept;

// Inside the runtime, or in the middle of a fork: the frame cannot be had.
bool is_inside_runtime() noexcept;

// ---- notes: one byte a page of the heap. With the frame ----
enum Note : std::uint8_t {
    note_locked = 1,         // pinned, and locked by the kernel
    note_not_inherited = 2,  // MADV_DONTFORK
    note_wiped = 4,          // MADV_WIPEONFORK
    note_not_dumped = 8,     // MADV_DONTDUMP
};

std::uint8_t notes_of(Address page) noexcept;
void set_notes(Range range, std::uint8_t mask, std::uint8_t bits) noexcept;

// visit(range) for each longest part that has all of `bits`, or, with `bits` 0, none of `mask`.
template <class Visit>
void for_each_noted(Range range, std::uint8_t mask, std::uint8_t bits, Visit visit) noexcept {
    for (Address at = range.first; at < range.end;) {
        const bool noted = (notes_of(at) & mask) == bits;
        Address end = at + PN_PAGE_BYTES;
        while (end < range.end && ((notes_of(end) & mask) == bits) == noted) end += PN_PAGE_BYTES;
        if (noted) visit(Range{at, end});
        at = end;
    }
}

// Bounds of all pages that ever had a note; empty when none had.
Range noted_range() noexcept;

}  // namespace pnode::preload
