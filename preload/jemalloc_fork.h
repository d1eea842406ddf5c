// jemalloc's handlers around fork(), called where they are needed.
//
// They take every lock it has and let go of them again, so that a child inherits none that a thread held that
// is not there: a write to some twenty pages in the parent and as many in the child, each of which the fork
// has just made shared, so each a fault and a copy. Where the thread that forks is the program's only one
// nobody else can hold a lock of jemalloc's, for the runtime's own threads never enter it (README.md), and
// nothing is to be done. libc does the same with the locks of its own.
#pragma once

namespace pnode::preload {

// In a forked child, after jemalloc's own handler.
void jemalloc_fork_in_child() noexcept;

}  // namespace pnode::preload
