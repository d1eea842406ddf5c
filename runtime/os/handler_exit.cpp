#include "runtime/os/handler_exit.h"

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "runtime/os/system_call.h"

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PNODE_CAN_LEAVE 1
#endif

namespace pnode::os {

#ifdef PNODE_CAN_LEAVE

namespace {

// As signal frames have it (arch/x86/include/uapi/asm/sigcontext.h): FXSAVE's area, the kernel's own words at
// its end, then the rest of XSAVE's.
constexpr std::size_t software_at = 464;
constexpr std::uint32_t has_extended_state = 0x46505853;  // FP_XSTATE_MAGIC1
constexpr greg_t nested_task = 0x4000;                    // with which IRET faults
constexpr unsigned auto_disarm = 1u << 31;                // SS_AUTODISARM

bool has_shadow_stack() noexcept {
    std::uint64_t pointer = 0;
    asm volatile("rdsspq %0" : "+r"(pointer));  // does nothing where there is none
    return pointer != 0;
}

// Its features of XSAVE; 0: the frame has none.
std::uint64_t features_of(const void* state) noexcept {
    if (state == nullptr) return 0;
    struct {
        std::uint32_t magic, bytes;
        std::uint64_t features;
    } said;
    std::memcpy(&said, static_cast<const std::byte*>(state) + software_at, sizeof said);
    return said.magic == has_extended_state ? said.features : 0;
}

}  // namespace

extern "C" {
[[noreturn, gnu::visibility("hidden")]] void pnode_leave(const greg_t* registers, const void* state,
                                                         std::uint64_t features, const ucontext_t* context);
[[gnu::visibility("hidden")]] extern const unsigned char pnode_leave_first[], pnode_leave_end[];
}

// IRET within the user's own ring takes instruction pointer, flags and stack pointer from five words, above
// which the context's address stays for where_handler_leads(). From pnode_leave_first on signals may come:
// what is below the stack pointer is not in use, and all that is done is restoring.
static_assert(REG_R8 == 0 && REG_R15 == 7 && REG_RDI == 8 && REG_RSI == 9 && REG_RBP == 10 && REG_RBX == 11 &&
              REG_RDX == 12 && REG_RAX == 13 && REG_RCX == 14 && REG_RSP == 15 && REG_RIP == 16 &&
              REG_EFL == 17 && REG_CSGSFS == 18);
static_assert(offsetof(ucontext_t, uc_sigmask) == 296 && SYS_rt_sigprocmask == 14 && SIG_SETMASK == 2);
asm(R"(
    .text
    .align 16
    .globl pnode_leave, pnode_leave_first, pnode_leave_end
    .hidden pnode_leave, pnode_leave_first, pnode_leave_end
    .type pnode_leave, @function
pnode_leave:
    .cfi_startproc
    .cfi_undefined rip
    mov %rdi, %rbx
    mov %rsi, %r12
    mov %rdx, %r13
    push %rcx
    movzwl 8*18+6(%rbx), %eax
    push %rax
    push 8*15(%rbx)
    push 8*17(%rbx)
    movzwl 8*18(%rbx), %eax
    push %rax
    push 8*16(%rbx)
    mov $2, %edi
    lea 296(%rcx), %rsi
    xor %edx, %edx
    mov $8, %r10d
    mov $14, %eax
    syscall
pnode_leave_first:
    mov %r13, %rax
    mov %r13, %rdx
    shr $32, %rdx
    xrstor64 (%r12)
    mov %rbx, %rdi
    mov 8*0(%rdi), %r8
    mov 8*1(%rdi), %r9
    mov 8*2(%rdi), %r10
    mov 8*3(%rdi), %r11
    mov 8*4(%rdi), %r12
    mov 8*5(%rdi), %r13
    mov 8*6(%rdi), %r14
    mov 8*7(%rdi), %r15
    mov 8*9(%rdi), %rsi
    mov 8*10(%rdi), %rbp
    mov 8*11(%rdi), %rbx
    mov 8*12(%rdi), %rdx
    mov 8*13(%rdi), %rax
    mov 8*14(%rdi), %rcx
    mov 8*8(%rdi), %rdi
    iretq
pnode_leave_end:
    .cfi_endproc
    .size pnode_leave, . - pnode_leave
)");

void leave_handler(ucontext_t* context) noexcept {
    const mcontext_t& machine = context->uc_mcontext;
    const std::uint64_t features = features_of(machine.fpregs);
    if (features == 0 || (machine.gregs[REG_EFL] & nested_task) != 0 ||
        (static_cast<unsigned>(context->uc_stack.ss_flags) & auto_disarm) != 0 || has_shadow_stack())
        return;
    pnode_leave(machine.gregs, machine.fpregs, features, context);
}

const ucontext_t* where_handler_leads(const ucontext_t& interrupted) noexcept {
    const gregset_t& registers = interrupted.uc_mcontext.gregs;
    const auto at = reinterpret_cast<const unsigned char*>(registers[REG_RIP]);
    if (at < pnode_leave_first || at >= pnode_leave_end) return nullptr;
    constexpr std::size_t words_of_iret = 5;
    return reinterpret_cast<const ucontext_t* const*>(registers[REG_RSP])[words_of_iret];
}

#else

void leave_handler(ucontext_t*) noexcept {}

const ucontext_t* where_handler_leads(const ucontext_t&) noexcept {
    return nullptr;
}

#endif

}  // namespace pnode::os
