// The entries' other half: a thread's first allocation, and every one that must stay out of jemalloc. Same
// meanings as the functions they are named after; all out of line, so that the entries stay a compare and a
// jump.
//
// Thread rule: any thread at once. What is freed inside the runtime and is jemalloc's is leaked: jemalloc
// cannot be entered there, and it happens to a few blocks of libc's in a process's life.
#pragma once

#include <cstddef>

#include "preload/bootstrap.h"

namespace pnode::preload {

// May this thread use jemalloc, now that its first-time work is done?
bool slow_ready() noexcept;

void* slow_malloc(std::size_t bytes) noexcept;
void* slow_calloc(std::size_t count, std::size_t bytes) noexcept;
void* slow_realloc(void* address, std::size_t bytes) noexcept;
void slow_free(void* address) noexcept;
int slow_posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept;
void* slow_aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept;
void* slow_mallocx(std::size_t bytes, int flags) noexcept;
void* slow_rallocx(void* address, std::size_t bytes, int flags) noexcept;

}  // namespace pnode::preload
