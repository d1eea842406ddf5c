// A system call of the program's, made when all that it points to is near, and stays so until it is over.
//
// Thread rule: any thread, signal handlers too. Blocks as the call does; allocates nothing, and takes no lock
// while the call is under way. May be left without returning (siglongjmp, cancellation): compiled without
// exceptions, so an unwinder passes through.
#pragma once

#include <ucontext.h>

#include "runtime/holds.h"

namespace pnode::preload {

// As the kernel gives it: the value, or minus an errno. `dispatched`: from the handler of a dispatched call,
// with the context that goes on after it, and signals blocked. Null: from one of our functions, called by the
// program as it calls libc's.
long held_call(long number, const long (&arguments)[6], ucontext_t* dispatched) noexcept;

// Of our own, of a page or less, from where the program says; false: it cannot be read.
bool peek(void* to, unsigned long from, unsigned long bytes) noexcept;
bool poke(unsigned long to, const void* from, unsigned long bytes) noexcept;

}  // namespace pnode::preload
