// The atomics by which threads hand pages to each other: page words, chunk states, the hand, holds.
//
// They are std::atomic. Built for the interleaving test (PNODE_STEPPED names its header), each operation
// first asks the test's scheduler who goes on, so that the very code of the runtime is walked through every
// order in which its threads may take these steps.
#pragma once

#include <atomic>

#ifdef PNODE_STEPPED
#include PNODE_STEPPED
#endif

namespace pnode::os {

#ifdef PNODE_STEPPED
inline constexpr bool stepped = true;
template <class T>
using Atomic = interleaving::SteppedAtomic<T>;
#else
inline constexpr bool stepped = false;
template <class T>
using Atomic = std::atomic<T>;
#endif

}  // namespace pnode::os
