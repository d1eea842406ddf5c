// What a process-wide layer above the runtime (the preload library) may ask of it beside the public API.
#pragma once

#include "runtime/os/descriptors.h"

namespace pnode {

// Registers the runtime's fork handlers now, if they are not: an allocator on top calls this before it
// registers its own (fork.cpp says why). Any thread.
void register_fork_handlers() noexcept;

// True for a descriptor that only the runtime may close.
inline bool runtime_owns_descriptor(int fd) noexcept {
    return os::is_own_descriptor(fd);
}

}  // namespace pnode
