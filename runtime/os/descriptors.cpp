#include "runtime/os/descriptors.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>

#include "runtime/os/injection.h"

namespace pnode::os {
namespace {

constexpr std::size_t descriptors_max = 4096;
constinit std::atomic<bool> own[descriptors_max];

// close(2) by number: the preload library interposes the libc function to protect these very descriptors.
void close_raw(int fd) noexcept {
    ::syscall(SYS_close, fd);
}

}  // namespace

int raise_descriptor(int fd) noexcept {
    if (fd < 0) return -1;
    // The table is remembered before anybody can see the number, and a number past the table is refused.
    int error = injected(Call::raise_descriptor);
    const int raised = error != 0 ? -1 : ::fcntl(fd, F_DUPFD_CLOEXEC, descriptor_min);
    if (error == 0) error = errno;
    close_raw(fd);
    if (raised >= 0 && static_cast<std::size_t>(raised) >= descriptors_max) {
        close_raw(raised);
        error = EMFILE;
    } else if (raised >= 0) {
        own[raised].store(true, std::memory_order_relaxed);
        return raised;
    }
    errno = error;
    return -1;
}

void adopt_descriptor(int fd) noexcept {
    if (fd >= 0 && static_cast<std::size_t>(fd) < descriptors_max)
        own[fd].store(true, std::memory_order_relaxed);
}

void disown_descriptor(int fd) noexcept {
    if (fd >= 0 && static_cast<std::size_t>(fd) < descriptors_max)
        own[fd].store(false, std::memory_order_relaxed);
}

void close_descriptor(int fd) noexcept {
    if (fd < 0) return;
    disown_descriptor(fd);
    close_raw(fd);
}

bool is_own_descriptor(int fd) noexcept {
    return fd >= descriptor_min && static_cast<std::size_t>(fd) < descriptors_max &&
           own[fd].load(std::memory_order_relaxed);
}

}  // namespace pnode::os
