// How far pages come near: decoded into a lane, proven, and put in place. For resolve.cpp and promote.cpp.
#pragma once

#include <cstdint>

#include "runtime/heap.h"

namespace pnode {

enum class Copied : std::uint8_t { done, present, gone };
// UFFDIO_COPY of one page, with each errno's decision. ENOMEM: DRAM is short: make room, wait, and say so
// every ten seconds.
Copied copy_in(Heap& heap, std::uint64_t page, const std::byte* contents) noexcept;

// Only threads that sleep in the kernel are to be woken.
void wake(Heap& heap, std::uint64_t page) noexcept;

// `pages` come near: in the ledger.
void charge(Heap& heap, std::uint64_t pages) noexcept;

// A page that left in the epoch of its stamp is back: how often it is passed over from now on.
PageWord warmed(Heap& heap, PageWord word, bool kept) noexcept;

// Brings near the far page that the caller owns, and with it those of the next ones, up to `pages` in all,
// that are far too and can be had without waiting. What becomes of the others tells nobody anything.
Resolved promote_far(Heap& heap, std::uint64_t page, PageWord word, FaultKind kind, unsigned pages,
                     ResolveLane& lane) noexcept;

// Brings near what of the run is far and can be had without waiting, nothing past the near limit.
void bring_ahead(Heap& heap, const ReadAhead::Run& ahead, ResolveLane& lane) noexcept;

}  // namespace pnode
