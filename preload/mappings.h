// mmap() and its family, for a process whose heap has addresses among them. docs/behaviour.md has a row per
// call: what the kernel does, and what is done here.
//
// Each takes what the system call takes and gives what it gives: a value, or minus an errno. What does not
// concern the heap goes to the kernel as it came.
//
// Thread rule: any thread at once, signal handlers and children of vfork() too. errno is left alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pnode/pnode.h"

namespace pnode::preload {

// Once, before there is a second thread. Until then every call is the kernel's.
void mappings_serve(pn_heap* heap) noexcept;

// From now on private anonymous mappings of at least `bytes_min` are the heap's; without this none is.
void mappings_capture(std::size_t bytes_min, bool strict) noexcept;

long mapping_map(std::uintptr_t address, std::size_t bytes, int protection, int flags, int fd,
                 std::int64_t offset) noexcept;
long mapping_unmap(std::uintptr_t address, std::size_t bytes) noexcept;
long mapping_remap(std::uintptr_t old_address, std::size_t old_bytes, std::size_t new_bytes, int flags,
                   std::uintptr_t new_address) noexcept;
long mapping_protect(std::uintptr_t address, std::size_t bytes, int protection) noexcept;
long mapping_protect_with_key(std::uintptr_t address, std::size_t bytes, int protection, int key) noexcept;
long mapping_alloc_key(unsigned flags, unsigned rights) noexcept;
long mapping_advise(std::uintptr_t address, std::size_t bytes, int advice) noexcept;
long mapping_lock(std::uintptr_t address, std::size_t bytes, int flags) noexcept;
long mapping_unlock(std::uintptr_t address, std::size_t bytes) noexcept;
long mapping_lock_all(int flags) noexcept;
long mapping_unlock_all() noexcept;
long mapping_in_core(std::uintptr_t address, std::size_t bytes, unsigned char* vector) noexcept;
long mapping_sync(std::uintptr_t address, std::size_t bytes, int flags) noexcept;

// brk(2), and sbrk(3), which gives where the break was.
long mapping_break(std::uintptr_t wanted) noexcept;
long mapping_break_by(std::intptr_t bytes) noexcept;

// In a forked child, when the runtime is up: what was not to be inherited is not there.
void mappings_after_fork_in_child() noexcept;

}  // namespace pnode::preload
