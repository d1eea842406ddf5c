// mmap() and its family as a program calls them: one line each (mappings.h); and ioctl(), which has a
// userfaultfd watch memory.
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>

#include "preload/mappings.h"
#include "preload/shield/held_call.h"
#include "preload/userfaults.h"
#include "runtime/process.h"

#define PN_ENTRY extern "C" [[gnu::visibility("default")]]

namespace {

using namespace pnode::preload;

std::uintptr_t number(const void* address) noexcept {
    return reinterpret_cast<std::uintptr_t>(address);
}

// As libc gives what the kernel gave; errno changes on failure alone.
long returned(long result) noexcept {
    if (result >= 0 || result < -4095) return result;
    errno = static_cast<int>(-result);
    return -1;
}

int status(long result) noexcept {
    return static_cast<int>(returned(result));
}

void* pointer(long result) noexcept {
    return reinterpret_cast<void*>(returned(result));
}

}  // namespace

PN_ENTRY void* mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
                    std::int64_t offset) noexcept {
    return pointer(mapping_map(number(address), bytes, protection, flags, fd, offset));
}

PN_ENTRY void* mmap64(void* address, std::size_t bytes, int protection, int flags, int fd,
                      std::int64_t offset) noexcept {
    return pointer(mapping_map(number(address), bytes, protection, flags, fd, offset));
}

PN_ENTRY int munmap(void* address, std::size_t bytes) noexcept {
    return status(mapping_unmap(number(address), bytes));
}

PN_ENTRY void* mremap(void* address, std::size_t old_bytes, std::size_t new_bytes, int flags, ...) noexcept {
    va_list more;
    va_start(more, flags);
    const void* const target = va_arg(more, void*);
    va_end(more);
    return pointer(mapping_remap(number(address), old_bytes, new_bytes, flags, number(target)));
}

PN_ENTRY int mprotect(void* address, std::size_t bytes, int protection) noexcept {
    return status(mapping_protect(number(address), bytes, protection));
}

PN_ENTRY int pkey_mprotect(void* address, std::size_t bytes, int protection, int key) noexcept {
    return status(mapping_protect_with_key(number(address), bytes, protection, key));
}

PN_ENTRY int pkey_alloc(unsigned flags, unsigned rights) noexcept {
    return status(mapping_alloc_key(flags, rights));
}

PN_ENTRY void* sbrk(std::intptr_t bytes) noexcept {
    return pointer(mapping_break_by(bytes));
}

PN_ENTRY int brk(void* end) noexcept {
    return status(mapping_break(number(end)));
}

PN_ENTRY int madvise(void* address, std::size_t bytes, int advice) noexcept {
    return status(mapping_advise(number(address), bytes, advice));
}

// POSIX_MADV_DONTNEED (4) must not lose contents: libc does nothing either. The others are madvise()'s.
PN_ENTRY int posix_madvise(void* address, std::size_t bytes, int advice) noexcept {
    return advice == 4 ? 0 : static_cast<int>(-mapping_advise(number(address), bytes, advice));
}

PN_ENTRY int mlock(const void* address, std::size_t bytes) noexcept {
    return status(mapping_lock(number(address), bytes, 0));
}

PN_ENTRY int mlock2(const void* address, std::size_t bytes, unsigned flags) noexcept {
    return status(mapping_lock(number(address), bytes, static_cast<int>(flags)));
}

PN_ENTRY int munlock(const void* address, std::size_t bytes) noexcept {
    return status(mapping_unlock(number(address), bytes));
}

PN_ENTRY int mlockall(int flags) noexcept {
    return status(mapping_lock_all(flags));
}

PN_ENTRY int munlockall() noexcept {
    return status(mapping_unlock_all());
}

PN_ENTRY int mincore(void* address, std::size_t bytes, unsigned char* vector) noexcept {
    return status(mapping_in_core(number(address), bytes, vector));
}

// libc's is a cancellation point; for memory it never blocks.
PN_ENTRY int msync(void* address, std::size_t bytes, int flags) noexcept {
    return status(mapping_sync(number(address), bytes, flags));
}

// No cancellation point, as libc's is none.
PN_ENTRY int ioctl(int fd, unsigned long request, ...) noexcept {
    va_list more;
    va_start(more, request);
    const std::uintptr_t argument = number(va_arg(more, void*));
    va_end(more);
    const auto kernels_bits = static_cast<std::uint32_t>(request);
    if (is_userfault_request(kernels_bits)) return status(userfault_control(fd, kernels_bits, argument));
    const long arguments[6] = {fd, static_cast<long>(request), static_cast<long>(argument)};
    return status(held_call(SYS_ioctl, arguments, nullptr));
}

// Made by libc's syscall(2), so that a shield sees what libc's prctl(2) would have shown it.
PN_ENTRY int prctl(int option, ...) noexcept {
    constexpr int set_memory_merge = 67;  // PR_SET_MEMORY_MERGE
    unsigned long of[4];
    va_list more;
    va_start(more, option);
    for (unsigned long& argument : of) argument = va_arg(more, unsigned long);
    va_end(more);
    const auto result = static_cast<int>(::syscall(SYS_prctl, option, of[0], of[1], of[2], of[3]));
    if (option == set_memory_merge) pnode::keep_heaps_unmerged();
    return result;
}
