// Anonymous memory of the runtime's own: never managed, never in a node.
#pragma once

#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <utility>

#include "runtime/os/injection.h"
#include "runtime/os/system_call.h"
#include "runtime/os/wait.h"

namespace pnode::os {

// The contents of whole pages, near ones, are gone: they read as zeros, or fault. Locked ones too, which
// MADV_DONTNEED leaves alone: the program may have locked what is ours to drop (mlock, mlockall).
inline void drop_pages(void* address, std::size_t bytes) noexcept {
    constexpr int dontneed_locked = 24;  // MADV_DONTNEED_LOCKED (5.18)
    Backoff backoff;
    for (int advice = MADV_DONTNEED;;) {
        int error = injected(Call::drop);
        if (error == 0) error = error_of(system_call(SYS_madvise, address, bytes, advice));
        if (error == 0) return;
        if (error == EINVAL && advice == MADV_DONTNEED) {
            advice = dontneed_locked;
        } else if (error != EAGAIN) {
            return;  // not our pages, or not pages: there is nothing to drop
        }
        backoff.wait();  // the kernel is short of something for a moment
    }
}

// The same for several ranges, in ascending order: one call, and one flush of other processors' TLBs, where
// the kernel lets a process advise itself (6.14); else one after the other. The kernel writes to no range.
inline void drop_ranges(const iovec* ranges, unsigned count) noexcept {
    constexpr int pidfd_self = -10000;  // PIDFD_SELF_THREAD: a forked child's means the child
    std::size_t done = 0;
    if (count > 1 && injected(Call::drop) == 0) {
        const long result = system_call(SYS_process_madvise, pidfd_self, ranges, count, MADV_DONTNEED, 0);
        if (!is_error(result)) done = static_cast<std::size_t>(result);
    }
    for (; count != 0; ++ranges, --count) {
        const std::size_t already = std::min(done, ranges->iov_len);
        done -= already;
        if (already == ranges->iov_len) continue;
        drop_pages(static_cast<std::byte*>(ranges->iov_base) + already, ranges->iov_len - already);
    }
}

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

    std::byte* address() const noexcept { return address_; }
    std::size_t bytes() const noexcept { return bytes_; }

  private:
    Mapping(std::byte* address, std::size_t bytes) : address_(address), bytes_(bytes) {}
    std::byte* address_ = nullptr;
    std::size_t bytes_ = 0;
};

}  // namespace pnode::os
