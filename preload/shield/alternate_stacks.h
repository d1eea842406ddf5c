// Each armed thread has an alternate signal stack of ours, and all handlers that the kernel knows run on it:
// a thread may run on a stack of managed memory, a program's own alternate stack may be managed memory, and
// the kernel cannot write a signal frame to a page that is far. Where the program's handlers run is its own
// choice all the same (signal_frames.h): what it says to sigaltstack(2) is kept here.
//
// Thread rule: each thread for itself, from a signal handler of ours.
#pragma once

#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>

namespace pnode::preload {

// The calling thread's first signal: when its handler returns, the kernel gives it one of ours.
void give_alternate_stack(ucontext_t* context) noexcept;
// The main thread, which is in no handler.
void give_alternate_stack_now() noexcept;
bool is_on_alternate_stack_of_ours(std::uint64_t stack_pointer) noexcept;
bool goes_on_on_ours(const ucontext_t& context) noexcept;

// sigaltstack(2), as the program calls it with its stack pointer there: 0, or minus an errno.
long set_alternate_stack(std::uint64_t stack_pointer, std::uint64_t next, std::uint64_t former) noexcept;
// What the program set, as a signal frame tells it; SS_DISABLE: nothing.
stack_t alternate_stack_of_program() noexcept;
// As a signal frame that is returned from says; nothing changes for who goes on on that stack.
void restore_alternate_stack_of_program(std::uint64_t stack_pointer, const stack_t& said) noexcept;
// Where a handler that asked for the alternate stack begins, above its frame; 0: where the thread is.
std::uint64_t alternate_stack_top(std::uint64_t stack_pointer) noexcept;
// Has a frame that ends there run over it?
bool is_below_alternate_stack(std::uint64_t frame) noexcept;

// What to clear when the calling thread is off its stack and ends; null when it has none.
std::atomic<std::uint32_t>* stack_taken() noexcept;

// In a forked child: other threads are not there to use theirs.
void alternate_stacks_after_fork_in_child() noexcept;

}  // namespace pnode::preload
