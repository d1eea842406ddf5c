// Robust mutexes: when a thread ends, the kernel walks the list of those it holds, in memory that may be far,
// and stops without a word where it cannot read.
#pragma once

#include <cstdint>

namespace pnode::preload {

// set_robust_list(2) of the calling thread.
void note_robust_list(std::uint64_t head) noexcept;
// The calling thread is about to end: its list comes near and stays. Bounded, as the kernel's walk is.
void hold_robust_list() noexcept;

}  // namespace pnode::preload
