// How a process gets its heap: once, at its first allocation.
#pragma once

#include <cstddef>

#include "pnode/pnode.h"

namespace pnode::preload {

// May the calling thread use jemalloc? Starts the process and gives the thread its arena when that was not
// done yet. False inside the runtime and before libc is ready: the bootstrap arena is for those. Leaves errno
// alone.
//
// Thread rule: any thread at once; one starts, the others wait for it.
bool thread_may_allocate() noexcept;

// Before a ready thread asks jemalloc for a block of large_bytes_min or more: makes the heap active if that
// will pass its activation size, so that the block is watched from the start. What smaller blocks have
// jemalloc take from the heap is less than that in one call, and the thread is due then (thread_state.h).
void before_large_block(std::size_t bytes) noexcept;

}  // namespace pnode::preload
