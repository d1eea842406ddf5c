#include "preload/shield/clones.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "preload/shield/alternate_stacks.h"
#include "preload/shield/held_call.h"
#include "preload/shield/robust_list.h"
#include "preload/shield/signal_calls.h"
#include "preload/shield/stubs.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"

namespace pnode::preload {
namespace {

constexpr std::uint64_t clear_handlers = 0x100000000;  // CLONE_CLEAR_SIGHAND

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

// What is wanted of a clone(2), whoever makes it.
struct Wish {
    std::uint64_t flags = 0, stack_top = 0, number_at = 0, thread_pointer = 0;
    std::uint64_t number_to = 0, descriptor_to = 0;  // where the caller is told of the child
};

bool is_vfork(const Wish& wish) noexcept {
    return (wish.flags & CLONE_VFORK) != 0 && (wish.flags & CLONE_VM) != 0;
}

void hold_number(Lasting what, std::uint64_t address) noexcept {
    hold_while_alive(what, address, address != 0 ? sizeof(int) : 0);
}

// What it writes in the new thread or process. A process has a copy of what is near now, or lives while this
// thread waits, on whose alternate stack its signals come; a thread holds for itself as soon as it can.
void hold_for_child(const Wish& wish) noexcept {
    const bool is_told = (wish.flags & (CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID)) != 0;
    const std::uint64_t number_at = is_told ? wish.number_at : 0;
    const bool has_variables = (wish.flags & CLONE_SETTLS) != 0;
    if ((wish.flags & CLONE_VM) == 0) {
        if (number_at != 0) Hold::bring_near(number_at, sizeof(int));
    } else if (is_vfork(wish) && !has_variables) {
        hold_number(Lasting::number_in_child, number_at);
    } else if (wish.stack_top != 0) {
        hold_for_thread_to_come({wish.stack_top, number_at, has_variables ? wish.thread_pointer : 0});
    }
}

// The stub makes the call when nobody else holds what it reads and writes any more.
void prepare(const Wish& wish) noexcept {
    holds_for_stub = true;
    note_tables_after_clone(wish.flags);
    if (is_vfork(wish)) os::remember_signals_for_vfork();
    hold_number(Lasting::child_number, (wish.flags & CLONE_PARENT_SETTID) != 0 ? wish.number_to : 0);
    hold_number(Lasting::child_descriptor, (wish.flags & CLONE_PIDFD) != 0 ? wish.descriptor_to : 0);
    hold_for_child(wish);
}

void close_taken_signals(ucontext_t* context, bool closed) noexcept {
    unsigned long mask = 0;
    std::memcpy(&mask, &context->uc_sigmask, sizeof mask);
    mask = closed ? mask | os::signals_left_open : mask & ~os::signals_left_open;
    std::memcpy(&context->uc_sigmask, &mask, sizeof mask);
}

// Ours are not to be cleared with the program's. Until the child has them back nothing may fault, and nothing
// be dispatched: SIGBUS and SIGSYS wait meanwhile, as they would if the program had them blocked.
void clear_in_child(Dispatched& call) noexcept {
    static __thread ClearingClone block __attribute__((tls_model("initial-exec"))) = {};
    hold_while_alive(Lasting::clearing_clone, reinterpret_cast<std::uint64_t>(&block), sizeof block);
    block = {os::action_when_cleared(SIGBUS),
             os::action_when_cleared(SIGSYS),
             os::signals_left_open,
             call.at(REG_RIP),
             call.at(REG_RBX),
             call.at(REG_RDI),
             call.at(REG_RSI),
             call.at(REG_RDX),
             call.at(REG_R10),
             call.at(REG_R8)};
    close_taken_signals(call.context, true);
    call.at(REG_RBX) = reinterpret_cast<greg_t>(&block);
    call.go_on_at(pnode_clearing_stub);
}

// An errno: as an older kernel answers to a structure of a later kernel's, longer than ours, and to a wish
// that cannot be granted.
int prepare_clone3(Dispatched& call, bool* clears) noexcept {
    clone_args wanted{};
    const std::uint64_t bytes = call.value(1);
    if (bytes > sizeof wanted) return E2BIG;
    hold_while_alive(Lasting::clone_arguments, call.value(0), bytes);
    if (!peek(&wanted, call.value(0), bytes)) return 0;  // the kernel says what is wrong with it
    *clears = (wanted.flags & clear_handlers) != 0;
    // It would be made while this thread goes on, and needs the block.
    if (*clears && (wanted.flags & (CLONE_VM | CLONE_VFORK)) == CLONE_VM) return EINVAL;
    prepare({wanted.flags, wanted.stack != 0 ? wanted.stack + wanted.stack_size : 0, wanted.child_tid,
             wanted.tls, wanted.parent_tid, wanted.pidfd});
    return 0;
}

Wish wish_of(const Dispatched& call) noexcept {
    if (call.number == SYS_vfork) return {.flags = CLONE_VM | CLONE_VFORK};
    if (call.number == SYS_fork) return {};
    return {call.value(0), call.value(1), call.value(3), call.value(4), call.value(2), call.value(2)};
}

// ---- a signal in a stub ----

std::uint64_t address_of(const void* place) noexcept {
    return reinterpret_cast<std::uint64_t>(place);
}

// The call that went on at `site`, which is behind it.
void make_again_at(ucontext_t* interrupted, std::uint64_t site) noexcept {
    constexpr std::uint64_t instruction_bytes = 2;  // of `syscall`
    interrupted->uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(site - instruction_bytes);
}

// In the parent: to a child no handler of the program's comes before it has left.
void leave_clearing_stub(ucontext_t* interrupted, std::uint64_t at) noexcept {
    gregset_t& registers = interrupted->uc_mcontext.gregs;
    close_taken_signals(interrupted, false);
    os::system_call(SYS_rt_sigprocmask, SIG_UNBLOCK, &os::signals_left_open, nullptr,
                    sizeof os::signals_left_open);
    if (at == address_of(pnode_clearing_left)) {
        registers[REG_RIP] = registers[REG_R11];
        return;
    }
    const auto& block = *reinterpret_cast<const ClearingClone*>(registers[REG_RBX]);
    if (at > address_of(pnode_clearing_made) && at < address_of(pnode_clearing_told))
        registers[REG_RAX] = registers[REG_R8];
    registers[REG_RIP] = block.site;
    registers[REG_RDI] = block.rdi;
    registers[REG_RSI] = block.rsi;
    registers[REG_RDX] = block.rdx;
    registers[REG_R10] = block.r10;
    registers[REG_R8] = block.r8;
    registers[REG_RBX] = block.rbx;
    if (at == address_of(pnode_clearing_stub))
        make_again_at(interrupted, static_cast<std::uint64_t>(block.site));
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
    for (const Lasting what : {Lasting::clone_arguments, Lasting::clearing_clone, Lasting::child_number,
                               Lasting::child_descriptor, Lasting::number_in_child})
        hold_while_alive(what, 0, 0);
}

void make_thread(Dispatched& call) noexcept {
    bool clears = false;
    if (call.number == SYS_clone3) {
        if (const int error = prepare_clone3(call, &clears)) return call.answer(-error);
        if (clears) return clear_in_child(call);
    } else {
        prepare(wish_of(call));
    }
    const void* stub = stub_for(static_cast<std::uint64_t>(call.at(REG_RIP)));
    if (stub == nullptr) return call.answer(-EAGAIN);
    call.go_on_at(stub);
}

void leave_clone_stub(ucontext_t* interrupted) noexcept {
    const auto at = static_cast<std::uint64_t>(interrupted->uc_mcontext.gregs[REG_RIP]);
    const std::uint64_t in_stubs = at - address_of(pnode_fork_stubs);
    const std::uint64_t stub = in_stubs / pnode_fork_stub_bytes;
    if (stub < fork_sites_max) {
        if (in_stubs % pnode_fork_stub_bytes == 0) make_again_at(interrupted, pnode_fork_sites[stub].load());
    } else if (at - address_of(pnode_clearing_stub) <=
               address_of(pnode_clearing_left) - address_of(pnode_clearing_stub)) {
        leave_clearing_stub(interrupted, at);
    }
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
