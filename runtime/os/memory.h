// Anonymous memory of the runtime's own: never managed, never in a node.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

#include "runtime/os/injection.h"
#include "runtime/os/pages.h"

namespace pnode::os {

// A private anonymous mapping; costs nothing until touched, is zero, and is unmapped with its owner.
class Mapping {
  public:
    Mapping() = default;
    Mapping(Mapping&& other) noexcept
        : address_(std::exchange(other.address_, nullptr)), bytes_(other.bytes_) {}
    Mapping& operator=(Mapping&& other) noexcept {
        std::swap(address_, other.address_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Mapping() {
        if (address_ != nullptr) ::munmap(address_, bytes_);
    }

    // 0 or an errno. `alignment` is a power of two of at least a page.
    int map(std::size_t bytes, std::size_t alignment = 4096,
            int protection = PROT_READ | PROT_WRITE) noexcept {
        const std::size_t padded = bytes + (alignment > 4096 ? alignment : 0);
        if (padded < bytes) return ENOMEM;
        if (const int error = injected(Call::map)) return error;
        void* raw = ::mmap(nullptr, padded, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (raw == MAP_FAILED) return errno;
        auto* start = static_cast<std::byte*>(raw);
        const std::size_t misaligned = reinterpret_cast<std::size_t>(start) & (alignment - 1);
        const std::size_t head = misaligned == 0 ? 0 : alignment - misaligned;
        if (head != 0) ::munmap(start, head);
        if (padded - head > bytes) ::munmap(start + head + bytes, padded - head - bytes);
        *this = Mapping(start + head, bytes);
        return 0;
    }

    // The mapping is not there any more (MADV_DONTFORK, in a child), and its addresses may be somebody
    // else's.
    void forget() noexcept { address_ = nullptr; }

    // What of it was touched.
    std::size_t resident_bytes() const noexcept {
        unsigned char present[64];
        std::size_t resident = 0;
        for (std::size_t at = 0; at < bytes_; at += sizeof present * 4096) {
            const std::size_t length = std::min(bytes_ - at, sizeof present * 4096);
            if (::mincore(address_ + at, length, present) != 0) return bytes_;
            for (std::size_t page = 0; page < (length + 4095) / 4096; ++page)
                resident += (present[page] & 1) * std::size_t{4096};
        }
        return resident;
    }

    std::byte* address() const noexcept { return address_; }
    std::size_t bytes() const noexcept { return bytes_; }

  private:
    Mapping(std::byte* address, std::size_t bytes) : address_(address), bytes_(bytes) {}
    std::byte* address_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace pnode::os
