// How a process gets its heap: once, at its first allocation.
#pragma once

#include "pnode/pnode.h"

namespace pnode::preload {

// May the calling thread use jemalloc? Starts the process and gives the thread its arena when that was not
// done yet. False inside the runtime and before libc is ready: the bootstrap arena is for those. Leaves errno
// alone.
//
// Thread rule: any thread at once; one starts, the others wait for it.
bool thread_may_allocate() noexcept;

}  // namespace pnode::preload
