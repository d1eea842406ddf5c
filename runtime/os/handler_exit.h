// A signal handler's return without the kernel: what rt_sigreturn(2) would do, the mask by one cheaper call
// and the registers by the processor's own instructions. A tenth of a fault's whole cost
// (docs/performance.md).
//
// Thread rule: a handler of ours (signal_actions.h), for itself, as the last thing it does.
#pragma once

#include <ucontext.h>

namespace pnode::os {

// Goes on where `context`, the handler's own, says. Returns, and nothing has changed, where only the kernel
// can do it: another architecture, a shadow stack, an alternate stack that disarmed itself (SS_AUTODISARM), a
// nested task flag, sanitizers, which count handlers' returns. The caller then returns as handlers do.
void leave_handler(ucontext_t* context) noexcept;

// A signal may come on the way, when the mask is the program's again and registers are half restored: that
// context is where the way leads to. null: `interrupted` is not on it.
const ucontext_t* where_handler_leads(const ucontext_t& interrupted) noexcept;

}  // namespace pnode::os
