// The extent hooks: how a jemalloc arena takes its pages from the heap and gives them back.
//
// Thread rule: any thread at once. They run under jemalloc's locks, so nothing here may allocate, and each
// call of the runtime is made from within InsideRuntime. They leave errno alone.
#pragma once

#include "pnode/pnode.h"
#include "preload/jemalloc.h"

namespace pnode::preload {

// Before the first extent is asked for. With `strict`, what the heap refuses is refused; else it is plain
// memory.
void hooks_serve(pn_heap* heap, bool strict) noexcept;

// What to give to experimental.arenas_create_ext. Constant.
extern extent_hooks_t heap_hooks;

// The heap given to hooks_serve(), or null.
pn_heap* heap_served() noexcept;

// Is the address in a buffer of the heap? Reads two words.
bool is_managed(const void* address) noexcept;

}  // namespace pnode::preload
