// Packing a heap's store: what slabs with few blobs hold moves to fuller ones, and what became empty is given
// back. Where a store grew, or blobs of other sizes have taken the place of most, a seventh of it is free
// slots that cold blobs hold.
//
//     is it due    the store counts its free slots; by so much more than the last time left
//     mark         which slabs (blob_store.h); if all of it is not worth a walk, that was it
//     move         a walk over the page words, for only they name blobs: each that is in a marked slab
//     unmark       what could not be moved
//
// All in pieces of some tens of microseconds, for a fork waits for them. Nobody waits for a blob that is
// moved but who wants its page, and that for a copy of some KiB.
//
// Thread rule: one thread a heap, inside the operations gate: the recompressor where there is one, else the
// evictor, which pays back in rest what it took (go_on). In a forked child forget().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cxl/blob_store.h"

namespace pnode {

class Heap;

class Packing {
  public:
    // True: it begins, for a part in `gain_part` of the store, or more, may be gained.
    bool begin(Heap& heap, unsigned gain_part) noexcept;
    // After begin(). `copy` is room for a slot. False: that was the last piece.
    bool piece(Heap& heap, std::span<std::byte> copy) noexcept;

    // The evictor's, outside the gate: begins if it is due, and does a piece if it has rested for long
    // enough. In how many nanoseconds it wants to go on; 0: nothing to do.
    std::uint64_t go_on(Heap& heap) noexcept;

    void forget() noexcept { *this = {}; }

  private:
    enum class Phase : std::uint8_t { none, marking, moving, unmarking };
    bool is_due(Heap& heap, unsigned gain_part) noexcept;
    void mark(Heap& heap) noexcept;
    void move(Heap& heap, std::span<std::byte> copy) noexcept;

    Phase phase_ = Phase::none;
    cxl::BlobStore::Marking marking_;
    std::uint64_t hand_ = 0;              // of the walk: the next page
    std::uint64_t least_bytes_ = 0;       // worth a walk
    std::uint64_t free_bytes_after_ = 0;  // in slots, if all that is marked moves
    std::uint64_t free_bytes_left_ = 0;   // that the last time left, or fewer that were seen since
    bool has_moved_ = false;
    unsigned times_in_vain_ = 0;        // one after the other
    std::uint64_t rests_until_ns_ = 0;  // go_on
};

}  // namespace pnode
