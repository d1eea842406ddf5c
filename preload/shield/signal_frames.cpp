#include "preload/shield/signal_frames.h"

#include <sys/syscall.h>

#include <cstring>

#include "preload/shield/alternate_stacks.h"
#include "preload/shield/clones.h"
#include "preload/shield/open_call.h"
#include "preload/shield/signal_calls.h"
#include "preload/shield/stubs.h"
#include "runtime/os/handler_exit.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/os/system_call.h"

namespace pnode::preload {
namespace {

// As arch/x86/kernel/signal_64.c lays it out: libc's ucontext_t begins with the kernel's.
constexpr std::size_t kernel_context_bytes = offsetof(ucontext_t, uc_sigmask) + sizeof(unsigned long);
struct Frame {
    void (*restorer)();
    unsigned char context[kernel_context_bytes];
    siginfo_t info;
};
static_assert(sizeof(siginfo_t) == 128 && kernel_context_bytes == 304);

constexpr std::uint64_t red_zone_bytes = 128;  // of the x86-64 ABI: below a leaf function's stack pointer
constexpr std::size_t plain_fpu_bytes = 512;   // FXSAVE
constexpr std::uint64_t fpu_alignment = 64;

// The processor's extended state behind the plain one, if there is (struct _fpx_sw_bytes).
std::size_t fpu_bytes(const void* state) noexcept {
    constexpr std::size_t software_at = 464;
    constexpr std::uint32_t magic = 0x46505853;  // FP_XSTATE_MAGIC1
    std::uint32_t words[2];
    std::memcpy(words, static_cast<const unsigned char*>(state) + software_at, sizeof words);
    return words[0] == magic ? words[1] : plain_fpu_bytes;
}

struct Place {
    std::uint64_t frame;
    std::uint64_t fpu;
    bool fits;
};

Place place_below(std::uint64_t top, std::size_t state_bytes) noexcept {
    Place place{};
    place.fpu = (top - state_bytes) & ~(fpu_alignment - 1);
    place.frame = ((place.fpu - sizeof(Frame)) & ~std::uint64_t{15}) - sizeof(void*);
    place.fits = true;
    return place;
}

// Where the kernel would put it. Where our own frames are in the way (our handler made a fault that is the
// program's, or there was no alternate stack to be had), below them, and with no signal on top of what is
// written then.
Place find_place(std::uint64_t pointer, bool wants_alternate, std::size_t state_bytes) noexcept {
    const auto here = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
    const bool was_on_ours = is_on_alternate_stack_of_ours(pointer);
    const std::uint64_t alternate = wants_alternate && !was_on_ours ? alternate_stack_top(pointer) : 0;
    if (alternate != 0) {
        Place place = place_below(alternate, state_bytes);
        place.fits = !is_below_alternate_stack(place.frame);
        return place;
    }
    if (was_on_ours != is_on_alternate_stack_of_ours(here))
        return place_below(pointer - red_zone_bytes, state_bytes);
    os::block_signals();
    // Managed memory may fault while it is written, which is a signal on this very stack.
    return place_below(here - (was_on_ours ? std::uint64_t{4} << 10 : std::uint64_t{64} << 10), state_bytes);
}

// As the kernel has it when there is no room for a frame.
void end_by_segv() noexcept {
    const os::SignalAction none;
    os::set_kernel_action(SIGSEGV, &none, nullptr);
    constexpr unsigned long only = ~(1UL << (SIGSEGV - 1));
    os::block_signals(only & ~os::signals_left_open);
    os::system_call(SYS_tgkill, os::system_call(SYS_getpid), os::system_call(SYS_gettid), SIGSEGV);
}

}  // namespace

void take_back_lost_call(ucontext_t* interrupted) noexcept {
    constexpr greg_t instruction_bytes = 2;  // of `syscall`
    gregset_t& registers = interrupted->uc_mcontext.gregs;
    const auto at = static_cast<std::uint64_t>(registers[REG_RIP]);
    // Those of our own text are made, and leave the same.
    if (registers[REG_RCX] == registers[REG_RIP] && at - pnode_text_first > pnode_text_bytes)
        registers[REG_RIP] -= instruction_bytes;
}

void note_that_call_came(ucontext_t* dispatched) noexcept {
    dispatched->uc_mcontext.gregs[REG_RCX] = 0;
}

void begin_handler(int signal, const siginfo_t& info, void* context, const os::SignalAction& action,
                   unsigned long blocked) noexcept {
    auto* interrupted = static_cast<ucontext_t*>(context);
    // A fault was just served: its handler's registers are nobody's any more.
    if (const ucontext_t* const leads = os::where_handler_leads(*interrupted))
        take_context(interrupted, *leads);
    if (interrupted_call(*interrupted) != nullptr) end_interrupted_call(interrupted);
    take_back_lost_call(interrupted);
    leave_clone_stub(interrupted);
    gregset_t& registers = interrupted->uc_mcontext.gregs;
    const stack_t programs = alternate_stack_of_program();
    const std::size_t state_bytes =
        interrupted->uc_mcontext.fpregs != nullptr ? fpu_bytes(interrupted->uc_mcontext.fpregs) : 0;
    const Place place = find_place(static_cast<std::uint64_t>(registers[REG_RSP]),
                                   (action.flags & SA_ONSTACK) != 0, state_bytes);
    if (!place.fits) return end_by_segv();

    auto* frame = reinterpret_cast<Frame*>(place.frame);
    auto* theirs = reinterpret_cast<ucontext_t*>(frame->context);
    frame->restorer = action.restorer;
    std::memcpy(frame->context, interrupted, kernel_context_bytes);
    std::memcpy(&frame->info, &info, sizeof info);
    if (state_bytes != 0)
        std::memcpy(reinterpret_cast<void*>(place.fpu), interrupted->uc_mcontext.fpregs, state_bytes);
    if (state_bytes != 0) theirs->uc_mcontext.fpregs = reinterpret_cast<fpregset_t>(place.fpu);
    theirs->uc_stack = programs;
    const unsigned long mask = mask_as_program_sees_it(*interrupted);
    std::memcpy(&theirs->uc_sigmask, &mask, sizeof mask);

    set_mask_by_program(interrupted, blocked | os::signals_blocked_in_name);
    constexpr greg_t flags_off = 0x10000 | 0x400 | 0x100;  // RF, DF, TF
    registers[REG_EFL] &= ~flags_off;
    registers[REG_RAX] = 0;
    registers[REG_RDI] = signal;
    registers[REG_RSI] = reinterpret_cast<greg_t>(&frame->info);
    registers[REG_RDX] = reinterpret_cast<greg_t>(theirs);
    registers[REG_RSP] = static_cast<greg_t>(place.frame);
    registers[REG_RIP] = reinterpret_cast<greg_t>(action.handler);
}

bool may_begin_handler(const void* context) noexcept {
    const auto* const found = static_cast<const ucontext_t*>(context);
    const ucontext_t* const leads = os::where_handler_leads(*found);
    const ucontext_t& interrupted = leads != nullptr ? *leads : *found;
    const OpenCall* const call = interrupted_call(interrupted);
    return !goes_on_on_ours(call != nullptr ? *call->program : interrupted);
}

bool take_context(ucontext_t* to, const ucontext_t& from) noexcept {
    void* const state = to->uc_mcontext.fpregs;
    const void* const saved = from.uc_mcontext.fpregs;
    const stack_t stack = to->uc_stack;
    if (saved != nullptr && (state == nullptr || fpu_bytes(saved) > fpu_bytes(state))) return false;
    if (saved != nullptr) std::memcpy(state, saved, fpu_bytes(saved));
    std::memcpy(static_cast<void*>(to), &from, kernel_context_bytes);
    to->uc_mcontext.fpregs = saved != nullptr ? static_cast<fpregset_t>(state) : nullptr;
    to->uc_stack = stack;
    return true;
}

void end_handler(ucontext_t* context) noexcept {
    const auto* ended =
        reinterpret_cast<const ucontext_t*>(static_cast<std::uint64_t>(context->uc_mcontext.gregs[REG_RSP]));
    const stack_t programs = ended->uc_stack;
    unsigned long mask = 0;
    std::memcpy(&mask, &ended->uc_sigmask, sizeof mask);
    // Our frame has room for all that this thread's processor state may be: a larger one is none of the
    // kernel's.
    if (!take_context(context, *ended)) return end_by_segv();
    restore_alternate_stack_of_program(static_cast<std::uint64_t>(context->uc_mcontext.gregs[REG_RSP]),
                                       programs);
    set_mask_by_program(context, mask);
}

}  // namespace pnode::preload
