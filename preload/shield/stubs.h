// Instructions of ours that take over where a dispatched call cannot be made from within the handler: whoever
// makes a new thread or process comes back twice, and a thread that ends does not come back (stubs.S).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/os/signal_actions.h"

namespace pnode::preload {

// Where a stub goes on to: the instruction behind the system call that it stands in for. A program has few.
inline constexpr unsigned fork_sites_max = 32;

inline constexpr long call_is_to_be_made_again = 513;  // ERESTARTNOINTR, which no program is told

// A clone3(2) with CLONE_CLEAR_SIGHAND.
struct ClearingClone {
    os::SignalAction bus, sys;  // what the child sets
    unsigned long open = 0;     // signals that are blocked until then
    long site = 0, rbx = 0, rdi = 0, rsi = 0, rdx = 0, r10 = 0, r8 = 0;
};
static_assert(offsetof(ClearingClone, open) == 64 && offsetof(ClearingClone, r8) == 120);  // stubs.S

extern "C" {
extern std::atomic<std::uint64_t> pnode_fork_sites[fork_sites_max];
extern const unsigned char pnode_fork_stubs[];  // one for each site, pnode_fork_stub_bytes apart
extern const std::uint64_t pnode_fork_stub_bytes;
extern const unsigned char pnode_exit_stub[];  // rbx: the address of an int that it clears; then exit(rdi)

// Makes clone3(2) with rbx at a ClearingClone, and SIGBUS and SIGSYS blocked; goes on where that says, with
// the registers that says: as the parent, or as a child that is armed and has our handlers of these two
// again. Where a signal interrupts it: at `stub` the call is still to be made; between `made` and `told` r8
// is its result, else rax; at `left` the registers are the program's again, and r11 is where it goes on.
extern const unsigned char pnode_clearing_stub[];
extern const unsigned char pnode_clearing_made[];
extern const unsigned char pnode_clearing_told[];
extern const unsigned char pnode_clearing_left[];

// Makes a system call with the signal mask at `open`, and sets the one at `closed` after it. Where a signal
// interrupts it: from `first` to `made`, the call is still to be made; at `done`, rax is its result; from
// there to before `end`, r14 is. It is not made, and minus call_is_to_be_made_again is the result, where
// `waiting` is not 0 (os::signals_waiting).
long pnode_open_call(long number, const long* arguments, const unsigned long* open,
                     const unsigned long* closed, const volatile unsigned long* waiting);
extern const unsigned char pnode_open_first[];
extern const unsigned char pnode_open_made[];
extern const unsigned char pnode_open_done[];
extern const unsigned char pnode_open_end[];

// What a new thread or process arms itself with: prctl(2), PR_SET_SYSCALL_USER_DISPATCH.
extern std::uint64_t pnode_text_first;
extern std::uint64_t pnode_text_bytes;
extern unsigned char pnode_dispatch_selector;
}

}  // namespace pnode::preload
