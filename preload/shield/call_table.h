// Which arguments of a system call point where, and how far: what has to be near before the kernel is asked.
//
// From the man pages and the kernel's include/linux/syscalls.h. A call that is not listed is treated as if
// each argument that is an address of a heap pointed to `unlisted_bytes`.
#pragma once

#include <cstdint>
#include <span>

namespace pnode::preload {

enum class Shape : std::uint8_t {
    bytes,         // `amount` bytes
    sized,         // as many bytes as argument `amount` says
    sized_behind,  // as many as the int says to which argument `amount` points (socket addresses and options)
    pages_of,      // a byte for each page of the length in argument `amount` (mincore)
    text,          // a string
    bits,          // one bit for each of argument 0 (select)
    array,         // argument `other` elements of `amount` bytes
    vector,        // argument `amount` iovecs, and what they point to
    remote_vector,  // ... which alone are here (process_vm_readv)
    message,        // a msghdr, and what it points to
    messages,       // argument `amount` mmsghdrs, and what they point to
    message_queue,  // a long and as many bytes as argument `amount` says (msgsnd)
    blocks,         // argument `other` pointers to iocbs, and what they point to (io_submit)
    texts,          // pointers to strings, up to a null (execve)
    waiters,        // argument `amount` futex_waitvs, and what they point to
    filter,         // a sock_fprog, and the program it points to (seccomp, SO_ATTACH_FILTER)
    io_control,     // as the request in argument 1 says
    set,            // a signal set that the kernel installs: SIGBUS and SIGSYS stay open in a copy
    packed_set,     // a pointer to such a set, and its size (pselect6)
};

struct Argument {
    std::uint8_t index = 0;
    Shape shape = Shape::bytes;
    std::uint16_t amount = 0;
    std::uint8_t other = 0;
};

inline constexpr std::uint64_t unlisted_bytes = 256;

// Empty for a call without pointers; `listed` false for a call that is not known.
std::span<const Argument> arguments_of(long call, bool* listed) noexcept;

}  // namespace pnode::preload
