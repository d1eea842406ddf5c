#include "preload/shield/clones.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>

#include "preload/shield/alternate_stacks.h"
#include "preload/shield/held_call.h"
#include "preload/shield/robust_list.h"
#include "preload/shield/signal_calls.h"
#include "preload/shield/stubs.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"

namespace pnode::preload {
namespace {

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

}  // namespace

bool everybody_has_descriptors() noexcept {
    return vforks.load() == 0 && !tables_parted.load();
}

void note_parted_tables() noexcept {
    tables_parted.store(true);
}

void let_go_of_stub() noexcept {
    end_vfork();
    if (!holds_for_stub) return;
    holds_for_stub = false;
    for (const Lasting what : {Lasting::clone_arguments, Lasting::child_number, Lasting::child_descriptor})
        hold_while_alive(what, 0, 0);
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

void clones_after_fork_in_child() noexcept {
    vforks.store(0);
    tables_parted.store(false);
    counts_as_vfork = false;
}

}  // namespace pnode::preload
