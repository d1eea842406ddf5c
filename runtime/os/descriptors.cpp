#include "runtime/os/descriptors.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>
#include <cerrno>
#include <cstddef>

#include "runtime/os/injection.h"
#include "runtime/os/system_call.h"

namespace pnode::os {
namespace {

constexpr std::size_t descriptors_max = 4096;
constinit std::atomic<bool> own[descriptors_max];

// Past libc: the preload library interposes close() to protect these very descriptors, and under its shield
// each system call of libc's would be a signal first.
void close_raw(int fd) noexcept {
    system_call(SYS_close, fd);
}

}  // namespace

int raise_descriptor(int fd) noexcept {
    if (fd < 0) return -1;
    // The table is remembered before anybody can see the number, and a number past the table is refused.
    int error = injected(Call::raise_descriptor);
    const long made = error != 0 ? -error : system_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, descriptor_min);
    const int raised = is_error(made) ? -1 : static_cast<int>(made);
    error = error_of(made);
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

int run_with_own_table(void (*work)(void* argument), void* argument) noexcept {
    struct Work {
        void (*run)(void*);
        void* argument;
    } given = {work, argument};
    alignas(16) std::byte stack[64 * 1024];
    if (const int error = injected(Call::make_child)) return error;
#if defined(__SANITIZE_THREAD__)
    return ENOSYS;  // the thread sanitizer takes it for a fork, and ends the process at its next thread
#endif
    const int child = ::clone(
        [](void* of) {
            const auto& that = *static_cast<const Work*>(of);
            that.run(that.argument);
            return 0;
        },
        stack + sizeof stack, CLONE_VM | CLONE_VFORK, &given);
    if (child < 0) return errno;
    while (system_call(SYS_wait4, child, nullptr, __WCLONE, nullptr) == -EINTR) {
    }
    return 0;
}

}  // namespace pnode::os
