// The memory-mapping system calls themselves: the value, or minus an errno, as the kernel gives it. errno is
// left alone.
//
// The library's own code (the runtime, jemalloc) calls mmap() and its family by libc's names, which are ours
// here; the linker turns those calls into these (kernel_calls.cpp), so that none of them is ever captured.
//
// Thread rule: any thread, any context.
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "runtime/os/system_call.h"

namespace pnode::preload::kernel {

template <class... Arguments>
long call(long number, Arguments... arguments) noexcept {
    return os::system_call(number, arguments...);
}

inline bool failed(long result) noexcept {
    return os::is_error(result);
}

inline long map(std::uintptr_t address, std::size_t bytes, int protection, int flags, int fd,
                std::int64_t offset) noexcept {
    return call(SYS_mmap, address, bytes, protection, flags, fd, offset);
}
inline long unmap(std::uintptr_t address, std::size_t bytes) noexcept {
    return call(SYS_munmap, address, bytes);
}
inline long remap(std::uintptr_t old_address, std::size_t old_bytes, std::size_t new_bytes, int flags,
                  std::uintptr_t new_address) noexcept {
    return call(SYS_mremap, old_address, old_bytes, new_bytes, flags, new_address);
}
inline long advise(std::uintptr_t address, std::size_t bytes, int advice) noexcept {
    return call(SYS_madvise, address, bytes, advice);
}
inline long protect(std::uintptr_t address, std::size_t bytes, int protection) noexcept {
    return call(SYS_mprotect, address, bytes, protection);
}
inline long protect_with_key(std::uintptr_t address, std::size_t bytes, int protection, int key) noexcept {
    return call(SYS_pkey_mprotect, address, bytes, protection, key);
}
inline long lock(std::uintptr_t address, std::size_t bytes, int flags) noexcept {
    return flags == 0 ? call(SYS_mlock, address, bytes) : call(SYS_mlock2, address, bytes, flags);
}
inline long unlock(std::uintptr_t address, std::size_t bytes) noexcept {
    return call(SYS_munlock, address, bytes);
}
inline long in_core(std::uintptr_t address, std::size_t bytes, unsigned char* vector) noexcept {
    return call(SYS_mincore, address, bytes, vector);
}
inline long sync(std::uintptr_t address, std::size_t bytes, int flags) noexcept {
    return call(SYS_msync, address, bytes, flags);
}

// libc's break, which it keeps a note of: never by a bare system call.
extern "C" void* __sbrk(std::intptr_t bytes) noexcept;

}  // namespace pnode::preload::kernel
