// The runtime's own descriptors: above 100, close-on-exec, and known, so that the preload library can keep a
// daemonising program from closing them.
//
// Thread rule: any thread; a fixed table of atomics, no allocation.
#pragma once

namespace pnode::os {

inline constexpr int descriptor_min = 101;

// Moves `fd` to a number of ours and remembers it; -1 and errno when there is none. `fd` is closed in either
// case.
int raise_descriptor(int fd) noexcept;

// Remembers a descriptor above 100 that a region keeps for itself, and forgets it.
void adopt_descriptor(int fd) noexcept;
void disown_descriptor(int fd) noexcept;

// Closes one of ours and forgets it; negative is accepted.
void close_descriptor(int fd) noexcept;

bool is_own_descriptor(int fd) noexcept;

}  // namespace pnode::os
