// The ways to close a descriptor by its number. A program that daemonises closes every one there may be; the
// runtime's own must outlive that, or the program's far pages are lost. So such a close succeeds and does
// nothing: they are close-on-exec, and the program never had them. A dup2() onto one is refused as the kernel
// refuses a number that is being taken: pretending success would let the program write to it.
//
// Thread rule: any thread at once, and a child of vfork(): nothing here locks, allocates or keeps state.
#include "runtime/os/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#define PN_ENTRY extern "C" [[gnu::visibility("default")]]

// libc's own, under the names by which it exports them beside the ones taken here: close() is a cancellation
// point.
extern "C" int __close(int fd);
extern "C" int __dup2(int from, int to) noexcept;

namespace {

using pnode::os::is_own_descriptor;

int close_numbers(unsigned first, unsigned last, int flags) noexcept {
    return static_cast<int>(syscall(SYS_close_range, first, last, flags));
}

// The first of the runtime's numbers in [from, last], else last + 1. Its table ends at 4096.
std::uint64_t next_own(std::uint64_t from, std::uint64_t last) noexcept {
    constexpr std::uint64_t table_last = 4095;
    for (std::uint64_t fd = std::max<std::uint64_t>(from, pnode::os::descriptor_min);
         fd <= std::min(last, table_last); ++fd) {
        if (is_own_descriptor(static_cast<int>(fd))) return fd;
    }
    return last + 1;
}

// Everything in [first, last] but the runtime's: the gaps between its numbers.
int close_all_but_own(unsigned first, unsigned last, int flags) noexcept {
    for (std::uint64_t at = first; at <= last;) {
        const std::uint64_t own = next_own(at, last);
        if (own > at && close_numbers(static_cast<unsigned>(at), static_cast<unsigned>(own - 1), flags) != 0)
            return -1;
        at = own + 1;
    }
    return 0;
}

// A kernel before 5.9, or a sandbox that does not know the call.
void close_one_by_one(int first) noexcept {
    rlimit limit{};
    const int end = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<int>(limit.rlim_cur) : 1024;
    for (int fd = first; fd < end; ++fd) {
        if (!is_own_descriptor(fd)) __close(fd);
    }
}

}  // namespace

PN_ENTRY int close(int fd) {
    return is_own_descriptor(fd) ? 0 : __close(fd);
}

PN_ENTRY int close_range(unsigned first, unsigned last, int flags) noexcept {
    constexpr int close_on_exec = 1 << 2;  // CLOSE_RANGE_CLOEXEC closes nothing now
    if (first > last || (flags & close_on_exec) != 0) return close_numbers(first, last, flags);
    return close_all_but_own(first, last, flags);
}

PN_ENTRY void closefrom(int first) noexcept {
    const int saved_errno = errno;
    if (first < 0) first = 0;
    if (close_all_but_own(static_cast<unsigned>(first), ~0U, 0) != 0) close_one_by_one(first);
    errno = saved_errno;
}

PN_ENTRY int dup2(int from, int to) noexcept {
    if (!is_own_descriptor(to)) return __dup2(from, to);
    errno = EBUSY;
    return -1;
}

PN_ENTRY int dup3(int from, int to, int flags) noexcept {
    if (!is_own_descriptor(to)) return static_cast<int>(syscall(SYS_dup3, from, to, flags));
    errno = EBUSY;
    return -1;
}
