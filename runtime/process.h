// What a process-wide layer above the runtime (the preload library) may ask of it beside the public API.
#pragma once

#include <cstddef>

#include "runtime/os/descriptors.h"

namespace pnode {

// Registers the runtime's fork handlers now, if they are not: an allocator on top calls this before it
// registers its own (fork.cpp says why). Any thread.
void register_fork_handlers() noexcept;

// These pages will be near when the next fork of this thread copies the process, and in the child until it
// serves its own faults: for what libc itself touches when nobody serves any. Addresses anywhere in a page,
// of any memory; the list stays where it is until the runtime's parent or child handler has run, which
// forgets it. One thread at a time, before the runtime's prepare handler.
void keep_near_at_fork(void* const* pages, std::size_t count) noexcept;

// From now on handler threads serve every heap's faults, the kernel's own accesses among them, whenever they
// come (io_uring). False, and nothing changes: a heap is served by the inline engine already, or there is no
// right to a full userfaultfd. Any thread.
bool serve_by_handler_threads() noexcept;

// True for a descriptor that only the runtime may close.
inline bool runtime_owns_descriptor(int fd) noexcept {
    return os::is_own_descriptor(fd);
}

}  // namespace pnode
