#include "preload/shield/alternate_stacks.h"

#include <signal.h>
#include <sys/mman.h>

#include <cerrno>

#include "preload/kernel_calls.h"
#include "preload/shield/held_call.h"
#include "preload/shield/keep_near.h"

namespace pnode::preload {
namespace {

// A frame with all of AVX-512 takes 3 KiB, one with AMX 11; our handlers 4; a program's handler that asked
// for an alternate stack and set none has the rest.
constexpr std::size_t stack_bytes = 128 << 10;
constexpr std::size_t guard_bytes = 4096;
constexpr std::size_t enough_for_both_bytes = 48 << 10;
constexpr unsigned stacks_max = 4096;

struct Stack {
    std::atomic<std::uint32_t> taken{0};  // by a thread of the process of this number; 0: free
    std::byte* address = nullptr;         // mapped once, then kept for the next thread
};
constinit Stack stacks[stacks_max];

struct OfThread {
    Stack* ours;
    stack_t programs;  // what it set, by its own words
    bool has_programs;
    bool asked;  // for one of ours, whether there was one or not
    stack_t to_install;
};
__thread OfThread mine __attribute__((tls_model("initial-exec"))) = {};

std::uint32_t this_process() noexcept {
    return static_cast<std::uint32_t>(os::system_call(SYS_getpid));
}

bool map_stack(Stack& stack) noexcept {
    if (stack.address != nullptr) return true;
    const long mapping = kernel::map(0, stack_bytes + guard_bytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (kernel::failed(mapping)) return false;
    kernel::protect(static_cast<std::uintptr_t>(mapping), guard_bytes, PROT_NONE);
    stack.address = reinterpret_cast<std::byte*>(mapping) + guard_bytes;
    return true;
}

// Null: all are in use; then signals come on the thread's own stack.
Stack* take_stack() noexcept {
    const std::uint32_t process = this_process();
    for (Stack& stack : stacks) {
        std::uint32_t nobody = 0;
        if (stack.taken.load(std::memory_order_relaxed) != 0 ||
            !stack.taken.compare_exchange_strong(nobody, process))
            continue;
        if (map_stack(stack)) return &stack;
        stack.taken.store(0);
        return nullptr;
    }
    return nullptr;
}

stack_t as_kernel_has_it(const Stack* stack) noexcept {
    stack_t said{};
    said.ss_flags = stack != nullptr ? 0 : SS_DISABLE;
    said.ss_sp = stack != nullptr ? stack->address : nullptr;
    said.ss_size = stack != nullptr ? stack_bytes : 0;
    return said;
}

void take_first() noexcept {
    if (mine.asked) return;
    mine.asked = true;
    mine.ours = take_stack();
}

bool is_on(const stack_t& stack, std::uint64_t at) noexcept {
    const auto low = reinterpret_cast<std::uint64_t>(stack.ss_sp);
    return (stack.ss_flags & SS_DISABLE) == 0 && at > low && at - low <= stack.ss_size;
}

stack_t as_program_sees_it(std::uint64_t at) noexcept {
    stack_t said{};
    said.ss_flags = SS_DISABLE;
    if (!mine.has_programs) return said;
    said = mine.programs;
    if (is_on(said, at)) said.ss_flags |= SS_ONSTACK;
    return said;
}

}  // namespace

void give_alternate_stack(ucontext_t* context) noexcept {
    if (mine.asked) return;
    take_first();
    if ((context->uc_stack.ss_flags & SS_DISABLE) != 0 || context->uc_stack.ss_size == 0)
        context->uc_stack = as_kernel_has_it(mine.ours);
}

void give_alternate_stack_now() noexcept {
    if (mine.asked) return;
    take_first();
    const stack_t ours = as_kernel_has_it(mine.ours);
    os::system_call(SYS_sigaltstack, &ours, nullptr);
}

long set_alternate_stack(const ucontext_t& context, std::uint64_t next, std::uint64_t former,
                         const stack_t** install) noexcept {
    constexpr std::size_t bytes_min = 2048;  // MINSIGSTKSZ, the kernel's
    const auto at = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]);
    const stack_t before = as_program_sees_it(at);
    stack_t wanted{};
    Hold hold;
    hold.add(next, next != 0 ? sizeof wanted : 0);
    hold.add(former, former != 0 ? sizeof before : 0);
    if (next != 0) {
        if (!peek(&wanted, next, sizeof wanted)) return -EFAULT;
        if ((before.ss_flags & SS_ONSTACK) != 0) return -EPERM;
        const unsigned flags = static_cast<unsigned>(wanted.ss_flags) & ~0x80000000U;  // SS_AUTODISARM
        if (flags != 0 && flags != SS_DISABLE && flags != SS_ONSTACK) return -EINVAL;
        const bool disable = flags == SS_DISABLE;
        if (!disable && wanted.ss_size < bytes_min) return -ENOMEM;
        mine.programs = wanted;
        mine.programs.ss_flags &= static_cast<int>(0x80000000U);
        mine.has_programs = !disable;
        const bool theirs = !disable && wanted.ss_size >= enough_for_both_bytes;
        // The kernel writes frames there at any time: it never goes far again.
        if (theirs) keep_near(reinterpret_cast<std::uint64_t>(wanted.ss_sp), wanted.ss_size);
        mine.to_install = theirs ? wanted : as_kernel_has_it(mine.ours);
        *install = &mine.to_install;
    }
    if (former != 0 && !poke(former, &before, sizeof before)) return -EFAULT;
    return 0;
}

std::atomic<std::uint32_t>* stack_taken() noexcept {
    return mine.ours != nullptr ? &mine.ours->taken : nullptr;
}

// The runtime's threads of this process have theirs already.
void alternate_stacks_after_fork_in_child() noexcept {
    const std::uint32_t process = this_process();
    if (mine.ours != nullptr) mine.ours->taken.store(process);
    for (Stack& stack : stacks) {
        if (stack.taken.load() != process) stack.taken.store(0);
    }
}

}  // namespace pnode::preload
