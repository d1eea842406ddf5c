// Where a thread stands, in one byte that every entry reads first.
//
// Thread rule: each thread reads and writes its own byte only; no atomics. A signal handler sees it as the
// code it interrupts left it, which is what it needs.
#pragma once

#include <cstddef>

namespace pnode::preload {

enum ThreadState : unsigned char {
    thread_unbound = 0,  // has not allocated yet: it has no arena
    thread_ready = 1,    // its allocations are jemalloc's
    thread_inside = 2,   // inside the runtime, or starting: its allocations are the bootstrap arena's
    thread_due = 3,      // its next call of an entry does what was due under jemalloc's locks (process.cpp)
};

// From this size on a block has the heap looked after before it is asked for: what smaller ones take of it at
// once is two MiB (arenas.h).
inline constexpr std::size_t large_bytes_min = std::size_t{1} << 20;

// Initial-exec: one load, and never an allocation of a thread-local block in the middle of malloc.
extern __thread ThreadState thread_state __attribute__((tls_model("initial-exec"), visibility("hidden")));

// Around every call of the runtime and whatever else must not enter jemalloc. Nests.
class InsideRuntime {
  public:
    InsideRuntime() noexcept : former_(thread_state) { thread_state = thread_inside; }
    ~InsideRuntime() { thread_state = former_; }
    InsideRuntime(const InsideRuntime&) = delete;
    InsideRuntime& operator=(const InsideRuntime&) = delete;

  private:
    ThreadState former_;
};

}  // namespace pnode::preload
