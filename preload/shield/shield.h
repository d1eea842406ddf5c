// The shield of the inline engine: with it every synchronous system call of the program works on far memory.
//
// Syscall User Dispatch (prctl(2), Linux 5.11; Documentation/admin-guide/syscall-user-dispatch.rst) lets
// system calls from this library's own text through and turns every other one into a SIGSYS in the thread
// that makes it. Our handler brings near what the call points to, holds it (runtime/holds.h), and makes the
// call itself. The calls that servers make all day are functions of ours too (wrapped_calls.cpp), and cost no
// signal.
//
// What it cannot cover is what the kernel does later. A program that begins to use io_uring gets handler
// threads (runtime/change_engine.h), or is refused (EPERM, as container runtimes do). Linux aio pins its
// pages while it submits. Other processes that read this one's memory (a debugger) find far pages absent.
#pragma once

namespace pnode::preload {

// Arms the calling thread, and every thread and process that comes of it. Before there is a second thread. 0,
// or an errno: the kernel has no dispatch, or does not let us. Until the shield is raised calls go straight
// to the kernel.
int shield_prepare() noexcept;
// Where it was prepared, and before the first page is far that the program knows of. What is done before,
// such as starting an allocator, costs no signals.
void shield_raise() noexcept;
// Is the program linked with liburing? Then it is better off with handler threads.
bool program_uses_rings() noexcept;
// Calls go straight to the kernel again, in all threads: there will be no far page.
void shield_lower() noexcept;

// In a forked child, when it can run: the stub armed it already.
void shield_after_fork_in_child() noexcept;

}  // namespace pnode::preload
