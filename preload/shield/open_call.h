// A dispatched call while the kernel makes it: the one moment in which the handler of a dispatched call lets
// signals in. A signal ends it, as it ends a call of the program's own: the call is made again when the
// program's handler has returned, or it has failed with EINTR, and that handler runs where the program's
// stack is. So no handler of the program's ever runs on top of ours.
//
// Code of ours may make a call by way of libc while a handler of ours runs (a lock's sched_yield(2), a node's
// eventfd): that is dispatched too, and is not the program's to be ended.
//
// Thread rule: each thread for itself, from a signal handler of ours.
#pragma once

#include <ucontext.h>

#include "runtime/holds.h"

namespace pnode::preload {

struct OpenCall {
    ucontext_t* program;  // what it goes on with, at the instruction behind the call
    long number;
    long done;  // bytes transferred by calls before this one
    Hold* hold;
    const unsigned long* temporary_mask;  // which the call sets while it waits, or null
    unsigned long mask;                   // while the call is made
};

// The call's result, as the kernel gives it, or minus call_is_to_be_made_again (stubs.h). Does not return
// where a signal's handler ended it.
long make_open_call(OpenCall& call, const long (&arguments)[6]) noexcept;

// The one that `interrupted` was in, or null.
const OpenCall* interrupted_call(const ucontext_t& interrupted) noexcept;
// `interrupted` becomes the program's context, as if it had made the call itself.
void end_interrupted_call(ucontext_t* interrupted) noexcept;

}  // namespace pnode::preload
