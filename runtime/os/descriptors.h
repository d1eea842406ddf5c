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

// Runs `work`, which opens files for a moment, where they take no number that the program has just closed and
// is about to use again: in a child that shares memory and waits for nobody, as vfork(2)'s, but has a table
// of descriptors of its own. The caller stands still until it is done. It may use the libc calls that a child
// of vfork() may, on a stack of 64 KiB. 0 or an errno: then `work` was not run.
//
// Thread rule: the runtime's own threads, which no shield dispatches and which have their signals blocked.
// The program's wait(2) does not see the child: it raises no SIGCHLD, and is asked for by __WCLONE.
int run_with_own_table(void (*work)(void* argument), void* argument) noexcept;

}  // namespace pnode::os
