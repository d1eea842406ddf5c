#include "preload/shield/shield.h"

#include <link.h>
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
#include "preload/shield/clones.h"
#include "preload/shield/dispatched.h"
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

constexpr int set_dispatch = 59;      // PR_SET_SYSCALL_USER_DISPATCH
constexpr int set_memory_merge = 67;  // PR_SET_MEMORY_MERGE
constexpr long dispatch_on = 1;
constexpr int dispatched_code = 2;  // SYS_USER_DISPATCH, a si_code
constexpr unsigned char selector_allow = 0;
constexpr unsigned char selector_block = 1;

constinit bool is_prepared = false;

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

// ---- what the kernel does to memory by itself ----

void merge_memory(Dispatched& call) noexcept {
    const auto& of = call.arguments;
    const long result = system_call(SYS_prctl, of[0], of[1], of[2], of[3], of[4]);
    keep_heaps_unmerged();
    call.answer(result);
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
            if (call.arguments[0] == set_memory_merge) return merge_memory(call);
            break;
        case SYS_unshare:
        case SYS_close_range:
            if (parts_tables(call) && is_shielded_process()) note_parted_tables();
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
    clones_after_fork_in_child();
    signal_calls_after_fork_in_child();
    alternate_stacks_after_fork_in_child();
}

}  // namespace pnode::preload
