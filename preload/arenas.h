// The arenas whose pages are the heap's, and which thread has which.
//
// Thread rule: any thread at once; lock-free, so that a child of fork() finds no lock held.
#pragma once

#include <cstddef>

namespace pnode::preload {

// An arena takes at least this much from the heap at a time, and gives back at once what is as large.
inline constexpr std::size_t arena_growth_bytes = std::size_t{2} << 20;

// What jemalloc is started with. With `managed`, its automatic arena is the one for bootstrap only.
const char* jemalloc_settings(bool managed) noexcept;

// Starts jemalloc. False when it cannot be.
bool arenas_prepare() noexcept;

// Gives the calling thread an arena of the heap, making it when there are few. From within InsideRuntime. A
// thread that cannot get one stays with plain memory.
void arenas_bind_this_thread() noexcept;

}  // namespace pnode::preload
