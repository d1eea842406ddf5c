// What a process-wide layer above the runtime (the preload library) may ask of it beside the public API.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pnode/pnode.h"
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

// Activating a heap starts threads, and for that libc takes a lock of its loader's, which a thread in
// dlopen() may hold that waits for memory. So an allocator does not have it done under locks of its own: it
// takes its pages by the first, and calls the third where it holds nothing. `bytes` are those that are about
// to be asked for.
int allocate_under_locks(pn_heap* heap, std::uint64_t bytes, std::uint64_t alignment, void** out) noexcept;
bool is_activation_due(pn_heap* heap) noexcept;
void activate_if_due(pn_heap* heap, std::uint64_t bytes) noexcept;

// Must something leave soon, so that an allocator should give back what it does not use? `was` is the answer
// before: the two differ by an eighth of the near limit. Any context.
bool is_near_scarce(pn_heap* heap, bool was) noexcept;

// The beginning of the runtime's prepare handler, for an allocator that calls it before it takes its own
// locks: waits until no heap is being activated, and lets none be until the fork is over. With nothing held
// that a thread may wait for which loads a library. One thread at a time.
void hold_for_fork() noexcept;

// From now on handler threads serve every heap's faults, the kernel's own accesses among them, whenever they
// come (io_uring). A heap that is served inline changes over (change_engine.h), which may take seconds.
// False, and every heap is served as before: there is no right to a full userfaultfd, or something stands in
// the way just now. `everybody_has_descriptors`: does every thread and process that has this memory have this
// process's descriptors? Any thread that holds none of the runtime's locks, nor libc's loader's.
bool serve_by_handler_threads(bool (*everybody_has_descriptors)() noexcept) noexcept;

// After a PR_SET_MEMORY_MERGE of the program's: the kernel merges no page of a heap (os::keep_unmerged; pages
// that are watched later are looked after when they are). Any context.
void keep_heaps_unmerged() noexcept;

// True for a descriptor that only the runtime may close.
inline bool runtime_owns_descriptor(int fd) noexcept {
    return os::is_own_descriptor(fd);
}

}  // namespace pnode
