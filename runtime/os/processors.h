// Where threads of this process run. The kernel writes that to each thread's rseq(2) area, which libc keeps
// at one distance from a thread's list of robust mutexes, and where that list is the kernel tells of any
// thread. So nothing is opened: proc(5) would take a number of the program's for a moment.
//
// Thread rule: any thread that libc started.
#pragma once

#include <cstdint>

namespace pnode::os {

// Where the kernel writes it for that thread of ours, or 0: it is not known (before glibc 2.35, a libc that
// registers no rseq, no such thread). In the thread's own storage, which ends with the thread, and may be
// managed memory.
std::uint64_t processor_word_of(std::uint32_t thread) noexcept;

// How many the calling thread may run on; 1 where the kernel does not say (more than 1024 of them).
unsigned processors_allowed() noexcept;

// The processor the thread runs on, or ran on last; -1: it is not known.
int processor_told_at(std::uint64_t word) noexcept;

}  // namespace pnode::os
