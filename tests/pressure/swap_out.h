// Other processes' pages, swapped out while they run: what the kernel does to whoever is short of memory,
// many times as often.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <random>

namespace pnode::test {

// Asks the kernel to swap out what private memory the process can write to, range by range in no order. A
// process that is gone, or that may not be asked, has nothing. Needs the right of process_madvise(2), and
// swap.
void swap_out(pid_t process, std::mt19937& random);

// How many KiB of it are in swap; 0 for one that is gone.
std::uint64_t swapped_kib(pid_t process);

}  // namespace pnode::test
