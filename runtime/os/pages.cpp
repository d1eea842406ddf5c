#include "runtime/os/pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cerrno>

#include "runtime/os/descriptors.h"
#include "runtime/os/injection.h"
#include "runtime/os/system_call.h"
#include "runtime/os/wait.h"

namespace pnode::os {
namespace {

// Not in every libc's headers.
constexpr int madv_cold = 20;           // 5.4
constexpr int madv_populate_read = 22;  // 5.14
constexpr int madv_populate_write = 23;
constexpr int madv_dontneed_locked = 24;  // 5.18
constexpr int mremap_dontunmap = 4;       // 5.7

// 0 or an errno; what the kernel is short of for a moment is waited for.
int drop(void* address, std::size_t bytes, int advice) noexcept {
    for (Backoff backoff;; backoff.wait()) {
        int error = injected(Call::drop);
        if (error == 0) error = error_of(system_call(SYS_madvise, address, bytes, advice));
        if (error != EAGAIN) return error;
    }
}

}  // namespace

// Another error: not our pages, or not pages: there is nothing to drop.
void drop_pages(void* address, std::size_t bytes) noexcept {
    if (drop(address, bytes, MADV_DONTNEED) == EINVAL) drop(address, bytes, madv_dontneed_locked);
}

bool drop_ranges(const iovec* ranges, unsigned count) noexcept {
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
        if (drop(static_cast<std::byte*>(ranges->iov_base) + already, ranges->iov_len - already,
                 MADV_DONTNEED) == EINVAL)
            return false;
    }
    return true;
}

void keep_unmerged(void* address, std::size_t bytes) noexcept {
    system_call(SYS_madvise, address, bytes, MADV_UNMERGEABLE);  // EINVAL: this kernel merges no pages
}

std::size_t read_ranges(std::byte* to, std::size_t bytes, const iovec* from, unsigned count) noexcept {
    if (injected(Call::read_ranges, &bytes) != 0) return 0;
    const iovec local = {to, bytes};
    const long result = system_call(SYS_process_vm_readv, system_call(SYS_getpid), &local, 1, from, count, 0);
    return is_error(result) ? 0 : static_cast<std::size_t>(result);
}

int find_present(const void* address, std::size_t bytes, unsigned char* present) noexcept {
    if (const int error = injected(Call::find_present)) return error;
    const int error = error_of(system_call(SYS_mincore, address, bytes, present));
    if (injected(Call::count_present) != 0)
        std::fill_n(present, (bytes + sizeof zeros - 1) / sizeof zeros, 0);
    return error;
}

namespace {

// A test that has calls fail may say that all is swapped out.
bool has_swap() noexcept {
    struct sysinfo info {};
    return injection.load() != nullptr || is_error(system_call(SYS_sysinfo, &info)) || info.totalswap != 0;
}

// Adds what the page map says of `count` pages.
int add_swapped(int page_map, std::uint64_t page, std::size_t count, unsigned char* occupied) noexcept {
    constexpr std::size_t piece_pages = 128;
    constexpr unsigned first_of_present_and_swapped = 62;  // and the last bit but it
    std::uint64_t entries[piece_pages] = {};
    for (std::size_t done = 0; done < count;) {
        const std::size_t piece = std::min(piece_pages, count - done);
        if (const int error = injected(Call::read_page_map)) return error;
        const long read = system_call(SYS_pread64, page_map, entries, piece * sizeof entries[0],
                                      (page + done) * sizeof entries[0]);
        if (is_error(read)) return error_of(read);
        const std::size_t entries_read = static_cast<std::size_t>(read) / sizeof entries[0];
        if (entries_read == 0) return EIO;
        for (std::size_t index = 0; index < entries_read; ++index) {
            if (entries[index] >> first_of_present_and_swapped != 0) occupied[done + index] = 1;
        }
        done += entries_read;
    }
    return 0;
}

}  // namespace

int find_occupied(int page_map, const void* address, std::size_t bytes, unsigned char* occupied) noexcept {
    const std::size_t count = bytes / sizeof zeros;
    if (const int error = find_present(address, bytes, occupied)) return error;
    const bool any_absent =
        std::any_of(occupied, occupied + count, [](unsigned char said) { return (said & 1) == 0; });
    if (!any_absent || !has_swap()) return 0;
    if (page_map < 0) return EBADF;
    return add_swapped(page_map, reinterpret_cast<std::uint64_t>(address) / sizeof zeros, count, occupied);
}

int open_page_map() noexcept {
    if (injected(Call::open_page_map) != 0) return -1;
    const long opened =
        system_call(SYS_openat, AT_FDCWD, "/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC, 0);
    return is_error(opened) ? -1 : raise_descriptor(static_cast<int>(opened));
}

bool is_present(const void* page) noexcept {
    unsigned char present = 1;
    return find_present(page, 1, &present) != 0 || (present & 1) != 0;
}

bool is_locked(void* page) noexcept {
    constexpr std::size_t page_bytes = 4096;
    return error_of(system_call(SYS_madvise, page, page_bytes, madv_cold)) == EINVAL;
}

int populate(void* address, std::size_t bytes, Populate how) noexcept {
    if (const int error = injected(Call::populate)) return error;
    return error_of(system_call(SYS_madvise, address, bytes,
                                how == Populate::write ? madv_populate_write : madv_populate_read));
}

int move_page_tables(void* to, void* from, std::size_t bytes) noexcept {
    constexpr int flags = MREMAP_MAYMOVE | MREMAP_FIXED | mremap_dontunmap;
    if (const int error = injected(Call::move_page_tables)) return error;
    return error_of(system_call(SYS_mremap, from, bytes, bytes, flags, to));
}

}  // namespace pnode::os
