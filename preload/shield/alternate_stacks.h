// Each armed thread has an alternate signal stack: a thread may run on a stack of managed memory, and the
// kernel cannot write a signal frame to a page that is far. A program's own takes its place if it is large
// enough for our handlers on top of the program's; a smaller one is taken note of, and the program's handlers
// run on ours.
//
// Thread rule: each thread for itself, from the handler of a dispatched call.
#pragma once

#include <ucontext.h>

#include <atomic>
#include <cstdint>

namespace pnode::preload {

// The calling thread's first dispatched call: when its handler returns, the kernel gives it one of ours.
void give_alternate_stack(ucontext_t* context) noexcept;
// The main thread, which is in no handler.
void give_alternate_stack_now() noexcept;

// sigaltstack(2), as the program calls it from `context`: 0, or minus an errno. `*install` is null, or what
// the kernel is to be told as soon as the thread is off the stack it is on (pnode_stack_stub); the calling
// thread's.
long set_alternate_stack(const ucontext_t& context, std::uint64_t next, std::uint64_t former,
                         const stack_t** install) noexcept;

// What to clear when the calling thread is off its stack and ends; null when it has none.
std::atomic<std::uint32_t>* stack_taken() noexcept;

// In a forked child: other threads are not there to use theirs.
void alternate_stacks_after_fork_in_child() noexcept;

}  // namespace pnode::preload
