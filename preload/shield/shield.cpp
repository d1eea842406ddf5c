#include "preload/shield/shield.h"

#include <link.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "preload/mapping_state.h"
#include "preload/mappings.h"
#include "preload/say.h"
#include "preload/shield/alternate_stacks.h"
#include "preload/shield/held_call.h"
#include "preload/shield/robust_list.h"
#include "preload/shield/signal_calls.h"
#include "preload/shield/signal_frames.h"
#include "preload/shield/stubs.h"
#include "preload/userfaults.h"
#include "runtime/os/descriptors.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/process.h"

namespace pnode::preload {
namespace {

using os::system_call;

constexpr int set_dispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH
constexpr long dispatch_on = 1;
constexpr int dispatched_code = 2;  // SYS_USER_DISPATCH, a si_code
constexpr unsigned char selector_allow = 0;
constexpr unsigned char selector_block = 1;

constinit bool is_prepared = false;

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
    // The program makes it again, when it has handled what waits for it.
    void make_again() noexcept {
        constexpr greg_t instruction_bytes = 2;  // of `syscall`
        at(REG_RAX) = number;
        at(REG_RIP) -= instruction_bytes;
    }
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

// Processes that share this memory but not the table of descriptors: what the runtime opens they have not
// (serve_by_handler_threads). Those of vfork(2) come and go; of a table that was parted otherwise nothing
// tells when it ends.
constinit std::atomic<unsigned> vforks{0};
constinit std::atomic<bool> tables_parted{false};
__thread bool counts_as_vfork __attribute__((tls_model("initial-exec"))) = false;

bool everybody_has_descriptors() noexcept {
    return vforks.load() == 0 && !tables_parted.load();
}

void note_tables_after_clone(std::uint64_t flags) noexcept {
    if ((flags & CLONE_VM) == 0 || (flags & CLONE_FILES) != 0 || !is_shielded_process()) return;
    if ((flags & CLONE_VFORK) == 0) return tables_parted.store(true);
    if (counts_as_vfork) return;
    counts_as_vfork = true;
    vforks.fetch_add(1);
}

// The thread that waited for its child of vfork() goes on; the child has its variables, and does not count.
void end_vfork() noexcept {
    if (!counts_as_vfork || !is_shielded_process()) return;
    counts_as_vfork = false;
    vforks.fetch_sub(1);
}

// For the stub, which makes a clone(2) when this handler has returned: until the thread's next call.
__thread bool holds_for_stub __attribute__((tls_model("initial-exec"))) = false;

void let_go_of_stub() noexcept {
    end_vfork();
    if (!holds_for_stub) return;
    holds_for_stub = false;
    for (const Lasting what : {Lasting::clone_arguments, Lasting::child_number, Lasting::child_descriptor})
        hold_while_alive(what, 0, 0);
}

// What clone(2) writes in the thread that calls it.
void hold_clone_results(std::uint64_t number_at, std::uint64_t descriptor_at) noexcept {
    holds_for_stub = true;
    hold_while_alive(Lasting::child_number, number_at, number_at != 0 ? sizeof(int) : 0);
    hold_while_alive(Lasting::child_descriptor, descriptor_at, descriptor_at != 0 ? sizeof(int) : 0);
}

// What it writes in the new thread or process. A process has a copy of what is near now; a thread holds for
// itself as soon as it can.
void hold_for_child(std::uint64_t flags, std::uint64_t stack_top, std::uint64_t number_at,
                    std::uint64_t thread_pointer) noexcept {
    if ((flags & (CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID)) == 0) number_at = 0;
    if ((flags & CLONE_VM) == 0) {
        if (number_at != 0) Hold::bring_near(number_at, sizeof(int));
    } else if (stack_top != 0) {
        hold_for_thread_to_come({stack_top, number_at, (flags & CLONE_SETTLS) != 0 ? thread_pointer : 0});
    }
}

// A child that shares this memory while its parent waits.
void remember_if_vfork(std::uint64_t flags) noexcept {
    if ((flags & CLONE_VFORK) != 0 && (flags & CLONE_VM) != 0) os::remember_signals_for_vfork();
}

// The stub makes the call when nobody holds the program's structure any more: it gets a copy. An errno: as an
// older kernel answers to a structure of a later kernel's, longer than ours, and to a wish that cannot be
// granted.
int prepare_clone3(Dispatched& call) noexcept {
    static __thread clone_args copy __attribute__((tls_model("initial-exec")));
    constexpr std::uint64_t clear_handlers = 0x100000000;  // CLONE_CLEAR_SIGHAND: ours among them
    const std::uint64_t bytes = call.value(1);
    if (bytes > sizeof copy) return E2BIG;
    Hold hold;
    hold.add(call.value(0), bytes);
    copy = {};
    if (!peek(&copy, call.value(0), bytes)) return 0;  // the kernel says what is wrong with it
    if ((copy.flags & clear_handlers) != 0) return EINVAL;
    remember_if_vfork(copy.flags);
    hold_while_alive(Lasting::clone_arguments, reinterpret_cast<std::uint64_t>(&copy), sizeof copy);
    hold_clone_results((copy.flags & CLONE_PARENT_SETTID) != 0 ? copy.parent_tid : 0,
                       (copy.flags & CLONE_PIDFD) != 0 ? copy.pidfd : 0);
    note_tables_after_clone(copy.flags);
    hold_for_child(copy.flags, copy.stack != 0 ? copy.stack + copy.stack_size : 0, copy.child_tid, copy.tls);
    call.at(REG_RDI) = reinterpret_cast<greg_t>(&copy);
    return 0;
}

void make_thread(Dispatched& call) noexcept {
    const void* stub = stub_for(static_cast<std::uint64_t>(call.at(REG_RIP)));
    if (stub == nullptr) return call.answer(-EAGAIN);
    if (call.number == SYS_clone3) {
        if (const int error = prepare_clone3(call)) return call.answer(-error);
    }
    if (call.number == SYS_vfork) os::remember_signals_for_vfork();
    if (call.number == SYS_clone) {
        note_tables_after_clone(call.value(0));
        remember_if_vfork(call.value(0));
        const bool writes = (call.value(0) & (CLONE_PARENT_SETTID | CLONE_PIDFD)) != 0;
        hold_clone_results(writes ? call.value(2) : 0, 0);
        hold_for_child(call.value(0), call.value(1), call.value(3), call.value(4));
    }
    if (call.number == SYS_vfork) note_tables_after_clone(CLONE_VM | CLONE_VFORK);
    call.go_on_at(stub);
}

void end_thread(Dispatched& call) noexcept {
    static std::atomic<std::uint32_t> nobody;
    std::atomic<std::uint32_t>* taken = nullptr;
    if (is_shielded_process()) {  // a child of vfork() has its parent's
        hold_robust_list();
        holds_end_thread();
        taken = stack_taken();
        // No signal may come any more on a stack that is about to be another thread's.
        set_mask_by_program(call.context, ~os::signals_left_open);
    }
    call.at(REG_RBX) = reinterpret_cast<greg_t>(taken != nullptr ? taken : &nobody);
    call.go_on_at(pnode_exit_stub);
}

// The thread's first call comes on the stack it was given; from its second on it has an alternate one.
void begin_thread(ucontext_t* context) noexcept {
    static __thread unsigned char calls __attribute__((tls_model("initial-exec"))) = 0;
    if (calls > 1) return;
    if (calls == 0) {
        take_over_holds(static_cast<std::uint64_t>(context->uc_mcontext.gregs[REG_RSP]));
        give_alternate_stack(context);
    }
    if (calls == 1) hold_while_alive(Lasting::first_frames, 0, 0);
    ++calls;
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

// ---- what the kernel accesses later, from nowhere that can be held ----

// Handler threads can serve that too: the heap changes over to them, unless it is not allowed or a process of
// another table of descriptors has this memory. The child of a vfork() is such a one itself.
bool may_use_rings() noexcept {
    if (is_shielded_process() && serve_by_handler_threads(everybody_has_descriptors)) return true;
    static std::atomic<bool> told{false};
    if (!told.exchange(true))
        say("io_uring is refused (EPERM): far memory is served inline; --engine thread serves it");
    return false;
}

// Where the kernel gives nobody a ring it may say so itself: without parameters it fails with EFAULT
// otherwise.
bool has_kernel_rings() noexcept {
    return system_call(SYS_io_uring_setup, 1, nullptr) == -EFAULT;
}

// Does the call give its caller a table of descriptors of its own?
bool parts_tables(const Dispatched& call) noexcept {
    constexpr long close_range_unshare = 2;
    return (call.number == SYS_unshare && (call.arguments[0] & CLONE_FILES) != 0) ||
           (call.number == SYS_close_range && (call.arguments[2] & close_range_unshare) != 0);
}

// ---- everything else ----

void answer(Dispatched& call) noexcept {
    switch (call.number) {
        case SYS_rt_sigreturn:
            return end_handler(call.context);
        case SYS_rt_sigprocmask:
            return call.answer(change_mask(call.context, call.arguments));
        case SYS_rt_sigaction:
            return call.answer(change_action(call.arguments));
        case SYS_sigaltstack:
            return call.answer(set_alternate_stack(static_cast<std::uint64_t>(call.at(REG_RSP)),
                                                   call.value(0), call.value(1)));
        case SYS_clone:
        case SYS_clone3:
        case SYS_fork:
        case SYS_vfork:
            return make_thread(call);
        case SYS_exit:
            return end_thread(call);
        case SYS_set_tid_address:
            hold_while_alive(Lasting::number, call.value(0), sizeof(int));
            break;
        case SYS_rseq:
            hold_while_alive(Lasting::parts, call.value(0), call.value(1));
            break;
        case SYS_set_robust_list:
            note_robust_list(call.value(0));
            break;
        case SYS_io_uring_setup:
            if (has_kernel_rings() && !may_use_rings()) return call.answer(-EPERM);
            break;
        case SYS_ioctl:
            if (!is_userfault_request(static_cast<std::uint32_t>(call.value(1)))) break;
            return call.answer(userfault_control(static_cast<int>(call.arguments[0]),
                                                 static_cast<std::uint32_t>(call.value(1)), call.value(2)));
        case SYS_prctl:
            if (call.arguments[0] == set_dispatch) return call.answer(-EBUSY);
            break;
        case SYS_unshare:
        case SYS_close_range:
            if (parts_tables(call) && is_shielded_process()) tables_parted.store(true);
            break;
        default:
            if (spare_descriptor(call) || change_mapping(call)) return;
            break;
    }
    const long result = held_call(call.number, call.arguments, call.context);
    result == -call_is_to_be_made_again ? call.make_again() : call.answer(result);
}

void on_sigsys(int signal, siginfo_t* info, void* context) {
    auto* interrupted = static_cast<ucontext_t*>(context);
    if (info->si_code != dispatched_code) {
        take_back_lost_call(interrupted);
        return os::pass_on(signal, info, context);
    }
    const int saved_errno = errno;
    note_that_call_came(interrupted);
    begin_thread(interrupted);
    let_go_of_stub();
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

int shield_prepare() noexcept {
    if (!find_text()) return ENOEXEC;
    // First what may be refused, so that then nothing has changed.
    pnode_dispatch_selector = selector_allow;
    const long armed = system_call(SYS_prctl, set_dispatch, dispatch_on, pnode_text_first, pnode_text_bytes,
                                   &pnode_dispatch_selector);
    if (os::is_error(armed)) return os::error_of(armed);
    if (const int error = os::take_signal(SIGSYS, on_sigsys, ~0UL)) return error;
    give_alternate_stack_now();
    signal_calls_begin();
    take_over_inherited_mask();
    is_prepared = true;
    return 0;
}

void shield_raise() noexcept {
    if (is_prepared) pnode_dispatch_selector = selector_block;
}

bool program_uses_rings() noexcept {
    const auto visit = [](dl_phdr_info* object, std::size_t, void*) {
        return object->dlpi_name != nullptr && std::strstr(object->dlpi_name, "/liburing.so") != nullptr ? 1
                                                                                                         : 0;
    };
    return ::dl_iterate_phdr(visit, nullptr) != 0;
}

void shield_lower() noexcept {
    is_prepared = false;
    pnode_dispatch_selector = selector_allow;
}

void shield_after_fork_in_child() noexcept {
    vforks.store(0);
    tables_parted.store(false);
    counts_as_vfork = false;
    signal_calls_after_fork_in_child();
    alternate_stacks_after_fork_in_child();
}

}  // namespace pnode::preload
