// The system calls that make new threads and processes, and the one that ends a thread: they go on in stubs
// (stubs.h).
//
// Thread rule: from the handler of a dispatched call.
#pragma once

#include <ucontext.h>

#include "preload/shield/dispatched.h"

namespace pnode::preload {

void make_thread(Dispatched& call) noexcept;
void end_thread(Dispatched& call) noexcept;
// The thread's first call comes on the stack it was given; from its second on it has an alternate one.
void begin_thread(ucontext_t* context) noexcept;
// What was held for a stub, which made its call when the handler before this one had returned.
void let_go_of_stub() noexcept;

// The program is about to handle a signal, which interrupted that context: where a stub has not made its call
// yet the program makes it again afterwards, for it may make others like it meanwhile.
void leave_clone_stub(ucontext_t* interrupted) noexcept;

// Has every process with this memory the descriptors that this one opens?
bool everybody_has_descriptors() noexcept;
// Something else than a clone(2) gave its caller a table of descriptors of its own.
void note_parted_tables() noexcept;

void clones_after_fork_in_child() noexcept;

}  // namespace pnode::preload
