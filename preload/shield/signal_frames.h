// Where the program's signal handlers run: where the kernel would run them. It is told that all handlers are
// ours, on an alternate stack of ours, because it cannot write a frame to a page that is far, nor read it
// back there: a stack may be managed memory (a thread's, a coroutine's, an alternate one). Our handler writes
// the frame itself, where a far page is served as any other, and has the thread go on in the program's
// handler. When that returns, we read the frame back.
//
// Thread rule: from a signal handler of ours.
#pragma once

#include <signal.h>
#include <ucontext.h>

#include "runtime/os/signal_actions.h"

namespace pnode::preload {

// When our handler returns to `context`, the program's begins; `blocked`: its mask.
void begin_handler(int signal, const siginfo_t& info, void* context, const os::SignalAction& action,
                   unsigned long blocked) noexcept;

// A dispatched call is lost if a SIGSYS that was sent is pending in that moment: the kernel keeps only one of
// them, and the program would go on behind its call with the call's number for a result. It is told from what
// the instruction leaves in rcx, which we clear in each call that came (note_that_call_came): the program
// makes the call again, after its handler.
void take_back_lost_call(ucontext_t* interrupted) noexcept;
void note_that_call_came(ucontext_t* dispatched) noexcept;

// Not where a handler of ours was interrupted that prepares a call or serves a fault: what it has in hand is
// not the program's to wait for, and its stack is ours. A call of the program's that is under way can be
// ended.
bool may_begin_handler(const void* context) noexcept;

// The program's rt_sigreturn(2), dispatched: when our handler returns to `context`, what the program's had
// interrupted goes on.
void end_handler(ucontext_t* context) noexcept;

// Processor state and registers of `from`, another frame of the calling thread's, with the mask; false: there
// is no room for that state.
bool take_context(ucontext_t* to, const ucontext_t& from) noexcept;

}  // namespace pnode::preload
