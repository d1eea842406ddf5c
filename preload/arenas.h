// The arenas whose pages are the heap's, which thread has which, and how long they keep pages that nobody
// uses.
//
// Thread rule: any thread at once; lock-free, so that a child of fork() finds no lock held.
#pragma once

#include <cstddef>

#include "pnode/pnode.h"

namespace pnode::preload {

// An arena takes at least this much from the heap at a time, and gives back at once what is as large.
inline constexpr std::size_t arena_growth_bytes = std::size_t{2} << 20;

// What jemalloc is started with. With `managed`, its automatic arena is the one for bootstrap only.
const char* jemalloc_settings(bool managed) noexcept;

// Starts jemalloc. False when it cannot be.
bool arenas_prepare() noexcept;

// Gives the calling thread an arena of the heap, the one that fewest have, making it when there are few. From
// within InsideRuntime. A thread that cannot get one stays with plain memory.
void arenas_bind_this_thread() noexcept;

// The child has one thread.
void arenas_after_fork_in_child() noexcept;

// Pages that are given back and taken again are faults, so with room in the heap they are kept as long as
// jemalloc keeps them by itself. Near pages that nobody uses would be the wrong ones to keep when others have
// to go far: then they are given back long before a page grows cold. Settings of the user's (MALLOC_CONF) are
// left alone.
//
// The first may be asked under jemalloc's locks; the second is called without, from within InsideRuntime.
bool is_change_of_decay_due(pn_heap* heap) noexcept;
void change_decay_if_due(pn_heap* heap) noexcept;

}  // namespace pnode::preload
