#include "preload/shield/open_call.h"

#include <cerrno>
#include <cstdint>

#include "preload/shield/alternate_stacks.h"
#include "preload/shield/signal_frames.h"
#include "preload/shield/stubs.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"

namespace pnode::preload {
namespace {

__thread OpenCall* under_way __attribute__((tls_model("initial-exec"))) = nullptr;

std::uint64_t address(const unsigned char* instruction) noexcept {
    return reinterpret_cast<std::uint64_t>(instruction);
}

std::uint64_t instruction_of(const ucontext_t& context) noexcept {
    return static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RIP]);
}

}  // namespace

long make_open_call(OpenCall& call, const long (&arguments)[6]) noexcept {
    constexpr unsigned long closed = ~os::signals_left_open;
    // Those that wait are sent where the outermost handler returns to: a call on top of it does not wait for
    // that.
    constexpr unsigned long nothing = 0;
    const volatile unsigned long* const waiting =
        goes_on_on_ours(*call.program) ? &nothing : &os::signals_waiting;
    OpenCall* const outer = under_way;
    under_way = &call;
    const long result = pnode_open_call(call.number, arguments, &call.mask, &closed, waiting);
    under_way = outer;
    return result;
}

const OpenCall* interrupted_call(const ucontext_t& interrupted) noexcept {
    const std::uint64_t at = instruction_of(interrupted);
    return at >= address(pnode_open_first) && at < address(pnode_open_end) ? under_way : nullptr;
}

void end_interrupted_call(ucontext_t* interrupted) noexcept {
    constexpr greg_t instruction_bytes = 2;  // of `syscall`
    OpenCall& call = *under_way;
    under_way = nullptr;
    const std::uint64_t at = instruction_of(*interrupted);
    const gregset_t& registers = interrupted->uc_mcontext.gregs;
    const long result = at == address(pnode_open_done) ? registers[REG_RAX] : registers[REG_R14];
    // What was near is not any more (EFAULT): it is looked at again when the call is made again.
    const bool again =
        at <= address(pnode_open_made) || result == -EFAULT || result == -call_is_to_be_made_again;
    call.hold->~Hold();
    take_context(interrupted, *call.program);
    interrupted->uc_stack =
        call.program->uc_stack;  // it may be the first call, with which the thread gets one
    gregset_t& programs = interrupted->uc_mcontext.gregs;
    if (call.done != 0) {
        programs[REG_RAX] = call.done + (again || result < 0 ? 0 : result);
    } else if (again) {
        programs[REG_RAX] = call.number;
        programs[REG_RIP] -= instruction_bytes;
    } else {
        programs[REG_RAX] = result;
    }
}

}  // namespace pnode::preload
