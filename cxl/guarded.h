// Access to memory that may go bad: a line of a device that cannot be read raises SIGBUS in whoever reads it.
//
// guarded(body) runs the body with a recovery point of this thread; where the access fails, the body is
// abandoned on the spot and the answer is false. The body may hold nothing that needs a destructor or a lock,
// and may touch no other memory that can raise SIGBUS. Guards do not nest.
//
// Thread rule: any thread, any context once install_guard() has returned 0; SIGBUS must not be blocked. Costs
// some ten nanoseconds.
#pragma once

#include <setjmp.h>
#include <signal.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pnode::cxl {

// What the kernel said is bad: the page or the larger mapping around the address.
struct BadRange {
    std::uintptr_t address = 0;
    std::size_t bytes = 0;  // 0: nothing was bad
};

struct RecoveryPoint {
    sigjmp_buf jump;
    BadRange bad;
};

// Initial-exec: the signal handler finds it without a call. Null outside of guarded().
extern thread_local RecoveryPoint* recovery_point __attribute__((tls_model("initial-exec")));

// Takes SIGBUS, in front of whoever has it, once per process; what no guard waits for is passed on. 0 or an
// errno. A program that installs its own handler afterwards does without guards: it is told what is bad in
// place of us, and no wrong byte is shown.
int install_guard() noexcept;
// From any other handler of SIGBUS that changes no mask, or all: does not return where a guard waits. True:
// it was news of a region's memory (bad_news.h), and nothing is left to do; false: it is somebody else's.
bool take_bad_memory(const siginfo_t& info) noexcept;

template <class Body>
[[gnu::noinline]] bool guarded(const Body& body, BadRange* bad) noexcept {
    RecoveryPoint point;
    if (sigsetjmp(point.jump, 0) != 0) {  // the mask is not saved: the handler changes none (guarded.cpp)
        recovery_point = nullptr;
        *bad = point.bad;
        return false;
    }
    recovery_point = &point;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    body();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    recovery_point = nullptr;
    return true;
}

}  // namespace pnode::cxl
