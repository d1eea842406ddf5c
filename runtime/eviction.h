// The stages of one eviction, in their order; evict.cpp goes through them for a batch. Each works on a lane,
// which one thread has. None throws, and none takes a lock that the program can hold.
#pragma once

#include "runtime/heap.h"
#include "runtime/unwritten.h"

namespace pnode {

constexpr unsigned move_retries_max = 16;

// ---- picking (pick.cpp): the lane owns what was near and is to leave ----

// Has the lane a batch?
bool is_full(const Heap& heap, const EvictLane& lane) noexcept;
// Takes it for the batch, if it still is what it was: an unwritten page with its blob is noted only, and
// owned when it is dropped.
bool take(const Heap& heap, EvictLane& lane, std::uint64_t page, PageWord word) noexcept;
// A batch of the coldest pages, or less. One thread at a time.
void pick(Heap& heap, EvictLane& lane, Evicting who) noexcept;

// ---- taking out (take_out.cpp): what the lane owns goes into limbo, or back near ----

void take_out(Heap& heap, EvictLane& lane) noexcept;
// Of what the lane owns, in the order of addresses: written pages become unwritten ones, together with some
// that stay (protect_spans.cpp).
void protect_spans(Heap& heap, EvictLane& lane) noexcept;

// ---- putting away (put_away.cpp): what is in limbo still goes where it belongs ----

// unwritten: near still, with a blob, to be dropped with the others.
enum class Away : std::uint8_t { taken_back, kept_near, no_room, far, fresh, unwritten };

// Its contents are a copy, and the page is where it was, write-protected still (stage_unwritten).
inline bool is_copied(const Heap& heap, const OutgoingPage& out) noexcept {
    return out.in_place && is_unwritten(heap, out.word);
}

// An accelerator takes what has to be compressed of the batch at once, while the pages stay in limbo.
void encode_ahead(Heap& heap, EvictLane& lane) noexcept;
// One page of the lane's. What must be compressed stays near unless it may be.
Away put_away(Heap& heap, EvictLane& lane, unsigned index, bool may_compress) noexcept;

// Everything in the lane goes where it belongs, and the staging pages are given back. How many left DRAM.
struct Cleared {
    unsigned left = 0;   // far or fresh now
    unsigned fulls = 0;  // pages the node had no room for
};
// After `fulls_max` such pages no other is compressed in vain: a full node has room now and then, for blobs
// of some sizes.
Cleared clear(Heap& heap, EvictLane& lane, Evicting who, unsigned fulls_max) noexcept;

}  // namespace pnode
