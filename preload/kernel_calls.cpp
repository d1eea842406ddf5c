// Where the linker sends this library's own calls (-Wl,--wrap, CMakeLists.txt): past our entries.
#include "preload/kernel_calls.h"

#include <cstdarg>

namespace {

long result_of(long result) noexcept {
    if (!pnode::preload::kernel::failed(result)) return result;
    errno = static_cast<int>(-result);
    return -1;
}

std::uintptr_t number(const void* address) noexcept {
    return reinterpret_cast<std::uintptr_t>(address);
}

}  // namespace

namespace kernel = pnode::preload::kernel;

extern "C" {

void* __wrap_mmap(void* address, std::size_t bytes, int protection, int flags, int fd,
                  off_t offset) noexcept {
    return reinterpret_cast<void*>(
        result_of(kernel::map(number(address), bytes, protection, flags, fd, offset)));
}

void* __wrap_mmap64(void* address, std::size_t bytes, int protection, int flags, int fd,
                    off64_t offset) noexcept {
    return __wrap_mmap(address, bytes, protection, flags, fd, offset);
}

int __wrap_munmap(void* address, std::size_t bytes) noexcept {
    return static_cast<int>(result_of(kernel::unmap(number(address), bytes)));
}

void* __wrap_mremap(void* address, std::size_t old_bytes, std::size_t new_bytes, int flags, ...) noexcept {
    va_list more;
    va_start(more, flags);
    void* const target = va_arg(more, void*);
    va_end(more);
    return reinterpret_cast<void*>(
        result_of(kernel::remap(number(address), old_bytes, new_bytes, flags, number(target))));
}

int __wrap_madvise(void* address, std::size_t bytes, int advice) noexcept {
    return static_cast<int>(result_of(kernel::advise(number(address), bytes, advice)));
}

int __wrap_mprotect(void* address, std::size_t bytes, int protection) noexcept {
    return static_cast<int>(result_of(kernel::protect(number(address), bytes, protection)));
}

int __wrap_mincore(void* address, std::size_t bytes, unsigned char* vector) noexcept {
    return static_cast<int>(result_of(kernel::in_core(number(address), bytes, vector)));
}

int __wrap_ioctl(int fd, unsigned long request, ...) noexcept {
    va_list more;
    va_start(more, request);
    const std::uintptr_t argument = number(va_arg(more, void*));
    va_end(more);
    return static_cast<int>(result_of(kernel::call(SYS_ioctl, fd, request, argument)));
}

void* __wrap_sbrk(std::intptr_t bytes) noexcept {
    return kernel::__sbrk(bytes);
}

}  // extern "C"
