#include "cxl/unmanaged.h"

#include <sys/mman.h>

#include <new>

namespace pnode::cxl {

void* map_unmanaged(std::size_t bytes) noexcept {
    void* address =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) return nullptr;
    // A huge page under a sparse table would make it resident whole. Kernels without huge pages refuse the
    // advice: nothing to avoid there.
    (void)madvise(address, bytes, MADV_NOHUGEPAGE);
    return address;
}

void unmap_unmanaged(void* address, std::size_t bytes) noexcept {
    if (address != nullptr) munmap(address, bytes == 0 ? 1 : bytes);
}

void* Unmanaged::operator new(std::size_t bytes) {
    void* address = map_unmanaged(bytes);
    if (address == nullptr) throw std::bad_alloc();
    return address;
}

}  // namespace pnode::cxl
