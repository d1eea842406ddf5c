// The system calls about signals, as a program makes them while SIGBUS and SIGSYS are ours: masks never close
// these two, handlers for them are kept and not installed, handlers for others are called by one of ours
// (signal_frames.h), and the program is told what it asked for.
//
// Thread rule: from the handler of a dispatched call.
#pragma once

#include <ucontext.h>

#include <cstdint>

namespace pnode::preload {

// Each: as the kernel gives it. The mask that holds when the handler returns is the context's.
long change_mask(ucontext_t* context, const long (&arguments)[6]) noexcept;
long change_action(const long (&arguments)[6]) noexcept;

// The mask that a signal interrupted, in the program's words; and what is to hold when our handler returns.
unsigned long mask_as_program_sees_it(const ucontext_t& context) noexcept;
void set_mask_by_program(ucontext_t* context, unsigned long mask) noexcept;

// Is this the process that the shield was raised in? A child of vfork(), which shares its memory, is not.
bool is_shielded_process() noexcept;
void signal_calls_begin() noexcept;
// In a forked child: whoever was changing an action is not there.
void signal_calls_after_fork_in_child() noexcept;

// The mask this process was started with.
void take_over_inherited_mask() noexcept;

}  // namespace pnode::preload
