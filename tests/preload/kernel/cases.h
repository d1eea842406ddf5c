// The matrix: one row a way for the kernel to reach memory.
#pragma once

#include <span>

#include "tests/preload/kernel/memory.h"
#include "tests/preload/kernel/outcome.h"

namespace kernel_access {

// Who touches the memory, and when: what an engine must be able to serve.
enum class Access {
    synchronous,  // the calling thread, before its call returns
    asleep,       // the same, and pages may leave while the call sleeps
    signal,       // the kernel, when it delivers a signal or returns from one
    deferred,     // a kernel worker, after the call returned
    foreign,      // another process
    // Where the kernel does not wait for whoever serves a fault, but fails at once (FAULT_FLAG_ALLOW_RETRY is
    // not set, or PF_EXITING is): no handler thread can serve these. The page must be near beforehand.
    unqueued,  // atomic operations on futex words: the calling thread, before its call returns
    exit,      // for a thread that has ended
    debugger   // another process, by ptrace(2) and /proc/PID/mem
};

struct Case {
    const char* name;
    Access access;
    void (*body)(Memory& memory, Outcome& outcome);
    bool every_shape = true;  // false: where the data's length makes no difference
};

std::span<const Case> file_cases();
std::span<const Case> name_cases();
std::span<const Case> socket_cases();
std::span<const Case> wait_cases();
std::span<const Case> thread_cases();
std::span<const Case> signal_cases();
std::span<const Case> ipc_cases();
std::span<const Case> process_cases();
std::span<const Case> deferred_cases();
std::span<const Case> foreign_cases();
std::span<const Case> library_cases();
std::span<const Case> bad_pointer_cases();

}  // namespace kernel_access
