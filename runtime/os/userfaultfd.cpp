#include "runtime/os/userfaultfd.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "runtime/os/descriptors.h"
#include "runtime/os/injection.h"
#include "runtime/os/pages.h"
#include "runtime/os/system_call.h"
#include "runtime/os/wait.h"

#ifndef USERFAULTFD_IOC
#define USERFAULTFD_IOC 0xAA
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(USERFAULTFD_IOC, 0x00)
#endif

namespace pnode::os {

const char* describe(UffdRung rung) noexcept {
    switch (rung) {
        case UffdRung::none:
            return "none";
        case UffdRung::user_mode_only:
            return "user-mode-only";
        case UffdRung::syscall:
            return "userfaultfd(2)";
        case UffdRung::device:
            return "/dev/userfaultfd";
    }
    return "unknown";
}

bool is_hidden(const char* what) noexcept {
    const char* list = std::getenv("PNODE_HIDE");
    const std::size_t length = std::strlen(what);
    while (list != nullptr && *list != '\0') {
        const char* end = std::strchr(list, ',');
        const std::size_t item = end != nullptr ? static_cast<std::size_t>(end - list) : std::strlen(list);
        if (item == length && std::memcmp(list, what, length) == 0) return true;
        list = end != nullptr ? end + 1 : nullptr;
    }
    return false;
}

namespace {

// As the call would fail.
bool fails(Call call) noexcept {
    const int error = injected(call);
    if (error != 0) errno = error;
    return error != 0;
}

int open_device() noexcept {
    if (fails(Call::open_device)) return -1;
    return raise_descriptor(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
}

int open_rung(UffdRung rung, int device) noexcept {
    if (rung != UffdRung::device && fails(Call::userfaultfd)) return -1;
    switch (rung) {
        case UffdRung::device:
            return ::ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
        case UffdRung::syscall:
            return static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC));
        case UffdRung::user_mode_only:
            return static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
        case UffdRung::none:
            break;
    }
    errno = EPERM;
    return -1;
}

// UFFDIO_API can be called once per descriptor, and refuses a feature it does not know: so one descriptor
// asks, another enables.
std::uint64_t offered_features(UffdRung rung, int device) noexcept {
    const int fd = open_rung(rung, device);
    if (fd < 0) return 0;
    uffdio_api api{};
    api.api = UFFD_API;
    const bool ok = ::ioctl(fd, UFFDIO_API, &api) == 0;
    ::close(fd);
    std::uint64_t features = ok ? static_cast<std::uint64_t>(api.features) : 0;
    if (is_hidden("move")) features &= ~static_cast<std::uint64_t>(UFFD_FEATURE_MOVE);
    if (is_hidden("poison")) features &= ~static_cast<std::uint64_t>(UFFD_FEATURE_POISON);
    return features;
}

}  // namespace

UffdOpened open_userfaultfd(std::uint64_t wanted, bool kernel_access) noexcept {
    UffdOpened opened;
    if (is_hidden("userfaultfd")) {
        opened.error = EPERM;
        return opened;
    }
    for (UffdRung rung : {UffdRung::device, UffdRung::syscall, UffdRung::user_mode_only}) {
        if (rung == UffdRung::user_mode_only && kernel_access) break;
        UffdOpened tried;
        tried.rung = rung;
        tried.device = rung == UffdRung::device ? open_device() : -1;
        // Not what the kernel answers to UFFDIO_API: that is everything it has, hidden features too.
        tried.features = offered_features(rung, tried.device) & wanted;
        const int error = reopen_userfaultfd(tried);
        if (error == 0) return tried;
        close_userfaultfd(tried);
        if (opened.error == 0 || rung != UffdRung::device) opened.error = error;
    }
    return opened;
}

int reopen_userfaultfd(UffdOpened& opened) noexcept {
    close_descriptor(opened.fd);
    opened.fd = raise_descriptor(open_rung(opened.rung, opened.device));
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = opened.features;
    if (opened.fd >= 0 && !fails(Call::enable_features) && ::ioctl(opened.fd, UFFDIO_API, &api) == 0)
        return 0;
    const int error = errno;
    close_descriptor(opened.fd);
    opened.fd = -1;
    return error;
}

void close_userfaultfd(UffdOpened& opened) noexcept {
    close_descriptor(opened.fd);
    close_descriptor(opened.device);
    opened = UffdOpened{};
}

namespace {

// On the fault path: by our own instructions, 0 or an errno.
int control(int fd, unsigned long request, void* argument) noexcept {
    return error_of(system_call(SYS_ioctl, fd, request, argument));
}

}  // namespace

int uffd_register(int fd, void* address, std::size_t bytes, std::uint64_t mode) noexcept {
    if (const int error = injected(Call::register_range)) return error;
    uffdio_register argument{};
    argument.range = {reinterpret_cast<std::uint64_t>(address), bytes};
    argument.mode = mode;
    return control(fd, UFFDIO_REGISTER, &argument);
}

int uffd_unregister(int fd, void* address, std::size_t bytes) noexcept {
    if (const int error = injected(Call::unregister_range)) return error;
    uffdio_range range{reinterpret_cast<std::uint64_t>(address), bytes};
    if (const int error = control(fd, UFFDIO_UNREGISTER, &range)) return error;
    // The kernel wakes who waits in the range before it locks it against faults (fs/userfaultfd.c,
    // userfaultfd_unregister): one that comes between, under the lock of its mapping alone, would wait for
    // ever. Now it has been locked, and nobody can be added.
    control(fd, UFFDIO_WAKE, &range);
    return 0;
}

namespace {

// The signed result field of COPY, MOVE and POISON: bytes done, or -errno, also where the ioctl itself failed
// with EAGAIN for the rest.
int finish(int error, std::int64_t field, std::size_t bytes, std::size_t* done) noexcept {
    *done = field > 0 ? static_cast<std::size_t>(field) : 0;
    if (error == 0 && *done == bytes) return 0;
    if (field < 0) return static_cast<int>(-field);
    return error != 0 ? error : EAGAIN;
}

}  // namespace

namespace {

// What it says of so many bytes moved; in tests less, as a kernel does that forgets some (userfaultfd.h).
std::int64_t counted(std::int64_t moved) noexcept {
    if (moved <= 0) return moved;
    auto bytes = static_cast<std::size_t>(moved);
    const int error = injected(Call::count_moved, &bytes);
    return error != 0 ? -error : static_cast<std::int64_t>(bytes);
}

int copy(int fd, void* destination, const void* source, std::size_t bytes, std::uint64_t mode,
         std::size_t* done) noexcept {
    *done = 0;
    std::size_t piece = bytes;
    if (const int error = injected(Call::copy, &piece)) return error;
    uffdio_copy argument{};
    argument.dst = reinterpret_cast<std::uint64_t>(destination);
    argument.src = reinterpret_cast<std::uint64_t>(source);
    argument.len = piece;
    argument.mode = mode;
    const int error = control(fd, UFFDIO_COPY, &argument);
    return finish(error, argument.copy, bytes, done);
}

}  // namespace

int uffd_copy(int fd, void* destination, const void* source, std::size_t bytes, std::size_t* done) noexcept {
    return copy(fd, destination, source, bytes, 0, done);
}

int uffd_copy_protected(int fd, void* destination, const void* source, std::size_t bytes,
                        std::size_t* done) noexcept {
    return copy(fd, destination, source, bytes, UFFDIO_COPY_MODE_WP, done);
}

int uffd_move(int fd, void* destination, void* source, std::size_t bytes, std::size_t* done) noexcept {
    *done = 0;
    std::size_t piece = bytes;
    if (const int error = injected(Call::move, &piece)) return error;
    uffdio_move argument{};
    argument.dst = reinterpret_cast<std::uint64_t>(destination);
    argument.src = reinterpret_cast<std::uint64_t>(source);
    argument.len = piece;
    const int error = control(fd, UFFDIO_MOVE, &argument);
    return finish(error, counted(argument.move), bytes, done);
}

bool uffd_is_occupied(int fd, std::byte* page, std::uint64_t mode) noexcept {
    if (is_present(page)) return true;
    const bool protects = (mode & UFFDIO_REGISTER_MODE_WP) != 0;
    std::size_t done = 0;
    for (Backoff backoff;; backoff.wait()) {
        const int error = copy(fd, page, zeros, sizeof zeros, protects ? UFFDIO_COPY_MODE_WP : 0, &done);
        if (error == EAGAIN || error == ENOMEM) continue;
        if (error == 0) drop_pages(page, sizeof zeros);
        return error == EEXIST;
    }
}

int uffd_write_protect(int fd, void* address, std::size_t bytes, bool protect) noexcept {
    if (const int error = injected(Call::write_protect)) return error;
    uffdio_writeprotect argument{};
    argument.range = {reinterpret_cast<std::uint64_t>(address), bytes};
    argument.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
    return control(fd, UFFDIO_WRITEPROTECT, &argument);
}

int uffd_wake(int fd, void* address, std::size_t bytes) noexcept {
    if (const int error = injected(Call::wake)) return error;
    uffdio_range range{reinterpret_cast<std::uint64_t>(address), bytes};
    return control(fd, UFFDIO_WAKE, &range);
}

ssize_t uffd_read(int fd, uffd_msg* messages, std::size_t bytes) noexcept {
    if (const int error = injected(Call::read_faults)) {
        errno = error;
        return -1;
    }
    return ::read(fd, messages, bytes);
}

int uffd_poison(int fd, void* address, std::size_t bytes) noexcept {
    if (const int error = injected(Call::poison)) return error;
    uffdio_poison argument{};
    argument.range = {reinterpret_cast<std::uint64_t>(address), bytes};
    return control(fd, UFFDIO_POISON, &argument);
}

}  // namespace pnode::os
