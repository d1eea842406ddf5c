#include "preload/shield/alternate_stacks.h"

#include <sys/mman.h>

#include <cerrno>

#include "preload/kernel_calls.h"
#include "preload/shield/held_call.h"

namespace pnode::preload {
namespace {

// A frame with all of AVX-512 takes 3 KiB, one with AMX 11; our handlers take 16. The rest is for a program's
// handler that came while a dispatched call was under way, and runs below it. Touched as far as it is used.
constexpr std::size_t stack_bytes = 1 << 20;
constexpr std::size_t guard_bytes = 4096;
constexpr unsigned stacks_max = 32768;
constexpr int auto_disarm = static_cast<int>(0x80000000U);  // SS_AUTODISARM

struct Stack {
    std::atomic<std::uint32_t> taken{0};  // by a thread of the process of this number; 0: free
    std::byte* address = nullptr;         // mapped once, then kept for the next thread
};
constinit Stack stacks[stacks_max];
constinit std::atomic<unsigned> stacks_end{0};  // none from here on was ever used

struct OfThread {
    Stack* ours;
    stack_t programs;  // what it set, by its own words
    bool has_programs;
    bool asked;  // for one of ours, whether there was one or not
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
        const auto past = static_cast<unsigned>(&stack - stacks) + 1;
        unsigned end = stacks_end.load();
        while (end < past && !stacks_end.compare_exchange_weak(end, past)) {
        }
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

std::uint64_t low_of(const stack_t& stack) noexcept {
    return reinterpret_cast<std::uint64_t>(stack.ss_sp);
}

// As the kernel asks it: with SS_AUTODISARM nobody is ever on it.
bool is_on_programs(std::uint64_t at) noexcept {
    return mine.has_programs && (mine.programs.ss_flags & auto_disarm) == 0 && at > low_of(mine.programs) &&
           at - low_of(mine.programs) <= mine.programs.ss_size;
}

void set_programs(const stack_t& wanted) noexcept {
    mine.has_programs = (wanted.ss_flags & ~auto_disarm) != SS_DISABLE;
    mine.programs = wanted;
    mine.programs.ss_flags &= auto_disarm;
}

}  // namespace

void give_alternate_stack(ucontext_t* context) noexcept {
    if (mine.asked) return;
    take_first();
    context->uc_stack = as_kernel_has_it(mine.ours);
}

void give_alternate_stack_now() noexcept {
    if (mine.asked) return;
    take_first();
    const stack_t ours = as_kernel_has_it(mine.ours);
    os::system_call(SYS_sigaltstack, &ours, nullptr);
}

bool is_on_alternate_stack_of_ours(std::uint64_t stack_pointer) noexcept {
    if (mine.ours == nullptr) return false;
    const auto low = reinterpret_cast<std::uint64_t>(mine.ours->address);
    return stack_pointer > low && stack_pointer - low <= stack_bytes;
}

bool goes_on_on_ours(const ucontext_t& context) noexcept {
    return is_on_alternate_stack_of_ours(static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]));
}

long set_alternate_stack(std::uint64_t stack_pointer, std::uint64_t next, std::uint64_t former) noexcept {
    constexpr std::size_t bytes_min = 2048;  // MINSIGSTKSZ, the kernel's
    stack_t before = alternate_stack_of_program();
    if (is_on_programs(stack_pointer)) before.ss_flags |= SS_ONSTACK;
    stack_t wanted{};
    Hold hold;
    hold.add(next, next != 0 ? sizeof wanted : 0);
    hold.add(former, former != 0 ? sizeof before : 0);
    if (next != 0) {
        if (!peek(&wanted, next, sizeof wanted)) return -EFAULT;
        if (is_on_programs(stack_pointer)) return -EPERM;
        const int mode = wanted.ss_flags & ~auto_disarm;
        if (mode != 0 && mode != SS_DISABLE && mode != SS_ONSTACK) return -EINVAL;
        if (mode != SS_DISABLE && wanted.ss_size < bytes_min) return -ENOMEM;
        set_programs(wanted);
    }
    return former == 0 || poke(former, &before, sizeof before) ? 0 : -EFAULT;
}

stack_t alternate_stack_of_program() noexcept {
    if (mine.has_programs) return mine.programs;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    return none;
}

void restore_alternate_stack_of_program(std::uint64_t stack_pointer, const stack_t& said) noexcept {
    // A frame of the kernel's own tells of ours.
    const bool of_ours = mine.ours != nullptr && said.ss_sp == mine.ours->address;
    if (!of_ours && !is_on_programs(stack_pointer)) set_programs(said);
}

std::uint64_t alternate_stack_top(std::uint64_t stack_pointer) noexcept {
    if (!mine.has_programs || is_on_programs(stack_pointer)) return 0;
    const std::uint64_t top = low_of(mine.programs) + mine.programs.ss_size;
    if ((mine.programs.ss_flags & auto_disarm) != 0) mine.has_programs = false;
    return top;
}

bool is_below_alternate_stack(std::uint64_t frame) noexcept {
    return frame <= low_of(mine.programs);
}

std::atomic<std::uint32_t>* stack_taken() noexcept {
    return mine.ours != nullptr ? &mine.ours->taken : nullptr;
}

// The runtime's threads of this process have theirs already.
void alternate_stacks_after_fork_in_child() noexcept {
    const std::uint32_t process = this_process();
    if (mine.ours != nullptr) mine.ours->taken.store(process);
    for (unsigned index = 0; index < stacks_end.load(); ++index) {
        if (stacks[index].taken.load() != process) stacks[index].taken.store(0);
    }
}

}  // namespace pnode::preload
