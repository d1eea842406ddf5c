// Near pages that were put in place write-protected and not written to since. The kernel vouches for their
// contents: they are copied while the program goes on reading them, and dropped where they are, many with one
// call and one flush of other processors' TLBs. A stage of eviction.h uses it.
#pragma once

#include "runtime/heap.h"

namespace pnode {

// Does the kernel vouch for it? Then the first write comes to resolve(). In a forked child words say so of
// pages that its kernel knows nothing of: those name an ancestor's store.
inline bool is_unwritten(const Heap& heap, PageWord word) noexcept {
    return word.write_protected() && word.store() == heap.far.own_store();
}
// Is the blob it kept its contents? Not for certain where the kernel was told late (protect_spans.cpp).
inline bool has_its_blob(const Heap& heap, PageWord word) noexcept {
    return is_unwritten(heap, word) && !word.written() && word.place() != cxl::no_blob;
}

// Of what the lane owns: unwritten pages are copied and go into limbo in place. Where the
// kernel copies none (not readable, not there) they stay as they are.
void stage_unwritten(Heap& heap, EvictLane& lane) noexcept;

// Near again, with a blob that is its contents, to be dropped with the others. The caller owns the page.
void leave_unwritten(Heap& heap, EvictLane& lane, const UnwrittenPage& page) noexcept;

// Drops what of the lane's unwritten pages still is what it was. How many left.
unsigned drop_unwritten(Heap& heap, EvictLane& lane) noexcept;

// Does a thread hold the page for a system call (holds.h)? Its word is busy already, and the fence was made.
bool is_page_held(const Heap& heap, std::uint64_t page) noexcept;

// Locked by the program, or pinned for DMA: passed over for long.
PageWord refused_pinned(Heap& heap, PageWord word) noexcept;

}  // namespace pnode
