#include "preload/shield/shield.h"

#include <link.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cerrno>
#include <cstdint>

#include "preload/mapping_state.h"
#include "preload/mappings.h"
#include "preload/shield/alternate_stacks.h"
#include "preload/shield/held_call.h"
#include "preload/shield/keep_near.h"
#include "preload/shield/robust_list.h"
#include "preload/shield/signal_calls.h"
#include "preload/shield/stubs.h"
#include "runtime/os/descriptors.h"
#include "runtime/os/signal_actions.h"

namespace pnode::preload {
namespace {

using os::system_call;

constexpr int set_dispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH
constexpr long dispatch_on = 1;
constexpr int dispatched_code = 2;  // SYS_USER_DISPATCH, a si_code
constexpr unsigned char selector_allow = 0;
constexpr unsigned char selector_block = 1;

// One dispatched call: the program's registers at the instruction behind it.
struct Dispatched {
    ucontext_t* context;
    long number;
    long arguments[6];

    greg_t& at(int name) noexcept { return context->uc_mcontext.gregs[name]; }
    std::uint64_t value(unsigned index) const noexcept {
        return static_cast<std::uint64_t>(arguments[index]);
    }
    void answer(long result) noexcept { at(REG_RAX) = result; }
    // Goes on at `stub` with the program's registers; the call's number is in rax again.
    void go_on_at(const void* stub) noexcept {
        at(REG_RAX) = number;
        at(REG_RIP) = static_cast<greg_t>(reinterpret_cast<std::uint64_t>(stub));
    }
};

Dispatched dispatched_in(ucontext_t* context) noexcept {
    const gregset_t& registers = context->uc_mcontext.gregs;
    return {context,
            registers[REG_RAX],
            {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX], registers[REG_R10],
             registers[REG_R8], registers[REG_R9]}};
}

bool concerns_heap(std::uint64_t address, std::uint64_t bytes) noexcept {
    const Range heap = heap_range();
    return address < heap.end && address + bytes > heap.first;
}

// ---- new threads and processes ----

// The stub for the instruction the program goes on at; null when there were too many such places.
const void* stub_for(std::uint64_t site) noexcept {
    for (unsigned index = 0; index < fork_sites_max; ++index) {
        std::uint64_t found = pnode_fork_sites[index].load();
        if (found == 0 && pnode_fork_sites[index].compare_exchange_strong(found, site)) found = site;
        if (found == site) return pnode_fork_stubs + index * pnode_fork_stub_bytes;
    }
    return nullptr;
}

// The stub makes the call when nobody holds the program's structure any more: it gets a copy. A structure of
// a later kernel's, longer than ours, stays where it is.
void copy_clone_arguments(Dispatched& call) noexcept {
    static __thread clone_args copy __attribute__((tls_model("initial-exec")));
    const std::uint64_t bytes = call.value(1);
    Hold hold;
    hold.add(call.value(0), bytes <= sizeof copy ? bytes : 0);
    copy = {};
    if (bytes > sizeof copy || !peek(&copy, call.value(0), bytes)) return;
    keep_near(copy.stack, copy.stack_size);
    Hold::bring_near(copy.pidfd, copy.pidfd != 0 ? sizeof(int) : 0);  // written at once, or the call fails
    keep_near(copy.child_tid, sizeof(int));
    keep_near(copy.parent_tid, sizeof(int));
    call.at(REG_RDI) = reinterpret_cast<greg_t>(&copy);
}

void make_thread(Dispatched& call) noexcept {
    const void* stub = stub_for(static_cast<std::uint64_t>(call.at(REG_RIP)));
    if (stub == nullptr) return call.answer(-EAGAIN);
    if (call.number == SYS_clone && (call.value(0) & (CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID)) != 0)
        keep_near(call.value(3), sizeof(int));
    if (call.number == SYS_clone && (call.value(0) & (CLONE_PARENT_SETTID | CLONE_PIDFD)) != 0)
        keep_near(call.value(2), sizeof(int));
    if (call.number == SYS_clone3) copy_clone_arguments(call);
    call.go_on_at(stub);
}

void end_thread(Dispatched& call) noexcept {
    promote_robust_list();
    holds_end_thread();
    static std::atomic<std::uint32_t> nobody;
    std::atomic<std::uint32_t>* const taken = stack_taken();
    call.at(REG_RBX) = reinterpret_cast<greg_t>(taken != nullptr ? taken : &nobody);
    call.go_on_at(pnode_exit_stub);
}

// A thread cannot change its alternate stack while it is on it, as here it may be.
void change_stack(Dispatched& call) noexcept {
    const stack_t* install = nullptr;
    call.answer(set_alternate_stack(*call.context, call.value(0), call.value(1), &install));
    if (install == nullptr) return;
    call.at(REG_RCX) = call.at(REG_RIP);
    call.at(REG_R11) = reinterpret_cast<greg_t>(install);
    call.at(REG_RIP) = reinterpret_cast<greg_t>(pnode_stack_stub);
}

// ---- memory: what concerns the heap must not happen behind its back ----

bool change_mapping(Dispatched& call) noexcept {
    const std::uint64_t address = call.value(0);
    const std::uint64_t bytes = call.value(1);
    const bool here = concerns_heap(address, bytes);
    switch (call.number) {
        case SYS_mmap:
            if (!here || (call.arguments[3] & (MAP_FIXED | MAP_FIXED_NOREPLACE)) == 0) return false;
            call.answer(mapping_map(address, bytes, static_cast<int>(call.arguments[2]),
                                    static_cast<int>(call.arguments[3]), static_cast<int>(call.arguments[4]),
                                    call.arguments[5]));
            return true;
        case SYS_munmap:
            if (here) call.answer(mapping_unmap(address, bytes));
            return here;
        case SYS_mremap: {
            const bool target =
                (call.arguments[3] & MREMAP_FIXED) != 0 && concerns_heap(call.value(4), call.value(2));
            if (!here && !target) return false;
            call.answer(mapping_remap(address, bytes, call.value(2), static_cast<int>(call.arguments[3]),
                                      call.value(4)));
            return true;
        }
        case SYS_mprotect:
            if (here) call.answer(mapping_protect(address, bytes, static_cast<int>(call.arguments[2])));
            return here;
        case SYS_madvise:
            if (here) call.answer(mapping_advise(address, bytes, static_cast<int>(call.arguments[2])));
            return here;
        case SYS_mlock:
            if (here) call.answer(mapping_lock(address, bytes, 0));
            return here;
        case SYS_mlock2:
            if (here) call.answer(mapping_lock(address, bytes, static_cast<int>(call.arguments[2])));
            return here;
        case SYS_munlock:
            if (here) call.answer(mapping_unlock(address, bytes));
            return here;
        case SYS_msync:
            if (here) call.answer(mapping_sync(address, bytes, static_cast<int>(call.arguments[2])));
            return here;
        case SYS_mlockall:
            call.answer(mapping_lock_all(static_cast<int>(call.arguments[0])));
            return true;
        case SYS_munlockall:
            call.answer(mapping_unlock_all());
            return true;
        default:
            return false;
    }
}

// ---- the runtime's own descriptors (preload/descriptors.cpp) ----

bool spare_descriptor(Dispatched& call) noexcept {
    const bool closes =
        call.number == SYS_close && os::is_own_descriptor(static_cast<int>(call.arguments[0]));
    const bool replaces = (call.number == SYS_dup2 || call.number == SYS_dup3) &&
                          os::is_own_descriptor(static_cast<int>(call.arguments[1]));
    if (closes) call.answer(0);
    if (replaces) call.answer(-EBUSY);
    return closes || replaces;
}

// ---- everything else ----

void answer(Dispatched& call) noexcept {
    switch (call.number) {
        case SYS_rt_sigreturn:
            open_returning_mask(static_cast<std::uint64_t>(call.at(REG_RSP)));
            return call.go_on_at(reinterpret_cast<const void*>(&os::pnode_signal_return));
        case SYS_rt_sigprocmask:
            return call.answer(change_mask(call.context, call.arguments));
        case SYS_rt_sigaction:
            return call.answer(change_action(call.arguments));
        case SYS_sigaltstack:
            return change_stack(call);
        case SYS_clone:
        case SYS_clone3:
        case SYS_fork:
        case SYS_vfork:
            return make_thread(call);
        case SYS_exit:
            return end_thread(call);
        case SYS_set_tid_address:
        case SYS_rseq:
            keep_near(call.value(0), 32);
            break;
        case SYS_set_robust_list:
            note_robust_list(call.value(0));
            break;
        case SYS_io_uring_setup:
            return call.answer(-EPERM);
        case SYS_prctl:
            if (call.arguments[0] == set_dispatch) return call.answer(-EBUSY);
            break;
        case SYS_execve:
        case SYS_execveat: {
            const BlockedForExec blocked;
            return call.answer(held_call(call.number, call.arguments, Caller::dispatched));
        }
        default:
            if (spare_descriptor(call) || change_mapping(call)) return;
            break;
    }
    call.answer(held_call(call.number, call.arguments, Caller::dispatched));
}

void on_sigsys(int signal, siginfo_t* info, void* context) {
    if (info->si_code != dispatched_code) return os::pass_on(signal, info, context);
    const int saved_errno = errno;
    auto* interrupted = static_cast<ucontext_t*>(context);
    give_alternate_stack(interrupted);
    Dispatched call = dispatched_in(interrupted);
    answer(call);
    errno = saved_errno;
}

// The executable part of this library: from it calls go straight to the kernel.
bool find_text() noexcept {
    const auto visit = [](dl_phdr_info* object, std::size_t, void*) {
        const auto here = reinterpret_cast<std::uint64_t>(&os::pnode_signal_return);
        for (unsigned index = 0; index < object->dlpi_phnum; ++index) {
            const auto& part = object->dlpi_phdr[index];
            const std::uint64_t first = object->dlpi_addr + part.p_vaddr;
            if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
            if (here < first || here >= first + part.p_memsz) continue;
            pnode_text_first = first;
            pnode_text_bytes = part.p_memsz;
            return 1;
        }
        return 0;
    };
    return ::dl_iterate_phdr(visit, nullptr) != 0;
}

}  // namespace

int shield_raise() noexcept {
    if (!find_text()) return ENOEXEC;
    give_alternate_stack_now();
    take_over_inherited_mask();
    if (const int error = os::take_signal(SIGSYS, on_sigsys, 0)) return error;
    pnode_dispatch_selector = selector_allow;
    const long armed = system_call(SYS_prctl, set_dispatch, dispatch_on, pnode_text_first, pnode_text_bytes,
                                   &pnode_dispatch_selector);
    if (os::is_error(armed)) return os::error_of(armed);
    pnode_dispatch_selector = selector_block;
    return 0;
}

void shield_lower() noexcept {
    pnode_dispatch_selector = selector_allow;
}

void shield_after_fork_in_child() noexcept {
    alternate_stacks_after_fork_in_child();
}

}  // namespace pnode::preload
