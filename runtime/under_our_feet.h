// Pages that the calling thread stands on.
//
// A thread may run on a stack that the program allocated: a coroutine's, a signal's, its own with its
// thread-local storage on top. What it uses of that must never be what it owns: its fault there, or the
// kernel's when it preempts the thread (rseq(2)), would wait for itself.
#pragma once

#include <cstdint>

#include "runtime/heap.h"

namespace pnode {

struct Window {
    std::uint64_t below_bytes, above_bytes;
    bool reaches(std::uint64_t around, std::uint64_t address) const noexcept {
        return address + page_bytes > around - below_bytes && address < around + above_bytes;
    }
};
inline constexpr Window stack_window = {64 * 1024, 8 * 1024};
// Static thread-local storage, and libc's own structure.
inline constexpr Window thread_window = {32 * 1024, 8 * 1024};

inline bool is_under_our_feet(const Heap& heap, std::uint64_t page) noexcept {
    const auto stack = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
    const auto thread = reinterpret_cast<std::uint64_t>(__builtin_thread_pointer());
    if (!heap.contains(stack) && !heap.contains(thread)) return false;
    const auto address = reinterpret_cast<std::uint64_t>(heap.address_of(page));
    return stack_window.reaches(stack, address) || thread_window.reaches(thread, address);
}

}  // namespace pnode
