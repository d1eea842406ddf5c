// ioctl(2) on a userfaultfd of the program's own, where the heap's addresses are concerned. Memory has one
// userfaultfd: what the program registers is handed out to it (pn_hand_out_contents), and is the kernel's and
// the program's until it is unmapped. What was touched is there, what was not is absent, as the program left
// it.
//
// A descriptor may be another process's: what it is asked for concerns that one's addresses, and not ours.
//
// Thread rule: any thread at once. errno is left alone. Who fills pages in (UFFDIO_COPY and its like) waits
// for no other call of the family: the kernel may have another thread wait for what it does next.
#pragma once

#include <cstdint>

namespace pnode::preload {

// Is it one of the requests that have to do with addresses? The kernel looks at so many bits.
bool is_userfault_request(std::uint32_t request) noexcept;

// As the kernel gives it: the value, or minus an errno.
long userfault_control(int fd, std::uint32_t request, std::uintptr_t argument) noexcept;

}  // namespace pnode::preload
