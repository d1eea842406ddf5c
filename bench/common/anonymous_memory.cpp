#include "bench/common/anonymous_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <system_error>

namespace pnode::bench {

AnonymousMemory::AnonymousMemory(std::size_t bytes) : bytes_(bytes) {
    void* address =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
    madvise(address, bytes_, MADV_NOHUGEPAGE);
    data_ = static_cast<std::byte*>(address);
}

AnonymousMemory::~AnonymousMemory() {
    munmap(data_, bytes_);
}

}  // namespace pnode::bench
