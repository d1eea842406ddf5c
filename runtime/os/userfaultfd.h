// userfaultfd(2): the constants that Debian 12's headers lack, and one thin wrapper per ioctl.
//
// Thread rule: any thread, any context, signal handlers too: nothing here allocates or locks. Facts from
// ioctl_userfaultfd(2) and the kernel's mm/userfaultfd.c.
#pragma once

#include <linux/userfaultfd.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#define _UFFDIO_POISON (0x08)
struct uffdio_poison {
    struct uffdio_range range;
    __u64 mode;
    __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, _UFFDIO_POISON, struct uffdio_poison)
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#define _UFFDIO_MOVE (0x05)
struct uffdio_move {
    __u64 dst;
    __u64 src;
    __u64 len;
    __u64 mode;
    __s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, _UFFDIO_MOVE, struct uffdio_move)
#define UFFDIO_MOVE_MODE_DONTWAKE ((__u64)1 << 0)
#endif

namespace pnode::os {

// How a userfaultfd can be had, best first (DESIGN 4: tried once, reported by probe).
enum class UffdRung : std::uint8_t { none, user_mode_only, syscall, device };
const char* describe(UffdRung rung) noexcept;

struct UffdOpened {
    int fd = -1;
    int device = -1;  // /dev/userfaultfd, where that was the rung
    UffdRung rung = UffdRung::none;
    std::uint64_t features = 0;  // what the kernel offers and was asked for
    int error = 0;               // why not, when fd < 0
    bool has(std::uint64_t feature) const noexcept { return (features & feature) == feature; }
};

// Opens a descriptor above 100, close-on-exec, and enables `wanted` of what the kernel offers.
// `kernel_access` refuses the user-mode-only rung. Honours PNODE_HIDE=userfaultfd and PNODE_HIDE=move, so
// that both absences can be tested.
UffdOpened open_userfaultfd(std::uint64_t wanted, bool kernel_access) noexcept;

// In a forked child: a descriptor for this process, of the same rung and features, in place of the one that
// watches the parent. By the device's descriptor, which it inherits, so that a process that gave its
// privileges away may fork. 0 or an errno.
int reopen_userfaultfd(UffdOpened& opened) noexcept;

void close_userfaultfd(UffdOpened& opened) noexcept;

// Each: 0 or an errno. `done` receives the bytes that were completed, also after an error.
int uffd_register(int fd, void* address, std::size_t bytes, std::uint64_t mode) noexcept;
int uffd_unregister(int fd, void* address, std::size_t bytes) noexcept;
int uffd_copy(int fd, void* destination, const void* source, std::size_t bytes, std::size_t* done) noexcept;
// The same, and the first write to it faults again (UFFDIO_COPY_MODE_WP).
int uffd_copy_protected(int fd, void* destination, const void* source, std::size_t bytes,
                        std::size_t* done) noexcept;
// More may have been moved than `done` says. Linux 6.18 forgets what it moved after it had to try again by
// itself, as it does where it finds a page just being migrated or swapped (mm/userfaultfd.c, move_pages:
// `err` stays EAGAIN). It mostly ends with EEXIST, those pages being in its way, but may with any other
// error. So after an error look where the first page behind `done` is (uffd_is_occupied): believed to be
// where it was, or what is in the way dropped, it would be lost.
int uffd_move(int fd, void* destination, void* source, std::size_t bytes, std::size_t* done) noexcept;
// Is there anything in the kernel's page table: a page, or a swapped one, which mincore(2) does not tell
// apart from nothing? Found by a copy of zeros that is refused, or taken back: for an instant an empty page
// reads as zeros. `mode` is what the page is registered with; what another thread writes in that instant is
// lost, unless it has MODE_WP: then such a write faults.
bool uffd_is_occupied(int fd, std::byte* page, std::uint64_t mode) noexcept;
int uffd_write_protect(int fd, void* address, std::size_t bytes, bool protect) noexcept;
int uffd_wake(int fd, void* address, std::size_t bytes) noexcept;
// As read(2).
ssize_t uffd_read(int fd, uffd_msg* messages, std::size_t bytes) noexcept;
int uffd_poison(int fd, void* address, std::size_t bytes) noexcept;

// True when PNODE_HIDE's comma-separated list names `what`.
bool is_hidden(const char* what) noexcept;

}  // namespace pnode::os
