/* See stubs.h. A dispatched clone(2) comes to a stub instead: the handler sets the program's registers as they were
 * at the call, and the instruction pointer here. The kernel clears a new thread's dispatch, so the stub sets it again
 * before it goes back to the program. rcx and r11 are the system call's to clobber; nothing else is, flags included.
 * Nothing is kept on the stack over the call: a child of vfork() runs on its parent's. */

#define SITES 32
#define STUB_BYTES 64
#define RED_ZONE 128
#define SYS_prctl 157
#define SYS_exit 60
#define SYS_rt_sigaction 13
#define SYS_rt_sigprocmask 14
#define SIG_UNBLOCK 1
#define SIG_SETMASK 2
#define SIGBUS 7
#define SIGSYS 31
#define ERESTARTNOINTR 513
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1

    .section .rodata
    .hidden pnode_fork_stub_bytes
    .globl pnode_fork_stub_bytes
    .align 8
pnode_fork_stub_bytes:
    .quad STUB_BYTES

    .bss
    .hidden pnode_fork_sites
    .globl pnode_fork_sites
    .align 64
pnode_fork_sites:
    .skip 8 * SITES

    .hidden pnode_text_first
    .globl pnode_text_first
pnode_text_first:
    .skip 8
    .hidden pnode_text_bytes
    .globl pnode_text_bytes
pnode_text_bytes:
    .skip 8
    .hidden pnode_dispatch_selector
    .globl pnode_dispatch_selector
    .align 64
pnode_dispatch_selector:
    .skip 64

/* The thread's own; changes rax, rdi, rsi, rdx, r10, r8, and what a system call changes. */
    .macro arm_dispatch
    mov $SYS_prctl, %eax
    mov $PR_SET_SYSCALL_USER_DISPATCH, %edi
    mov $PR_SYS_DISPATCH_ON, %esi
    mov pnode_text_first(%rip), %rdx
    mov pnode_text_bytes(%rip), %r10
    lea pnode_dispatch_selector(%rip), %r8
    syscall
    .endm

    .text
    .align 16
    .type arm_new, @function
arm_new:
    pushfq
    push %rdi
    push %rsi
    push %rdx
    push %r10
    push %r8
    arm_dispatch
    pop %r8
    pop %r10
    pop %rdx
    pop %rsi
    pop %rdi
    popfq
    mov $0, %eax
    ret
    .size arm_new, . - arm_new

    .align STUB_BYTES
    .hidden pnode_fork_stubs
    .globl pnode_fork_stubs
    .type pnode_fork_stubs, @function
pnode_fork_stubs:
    .set site, 0
    .rept SITES
    .align STUB_BYTES
    syscall
    mov %rax, %rcx
    jrcxz 1f
    jmp *(pnode_fork_sites + 8 * site)(%rip)
1:  lea -RED_ZONE(%rsp), %rsp
    call arm_new
    lea RED_ZONE(%rsp), %rsp
    jmp *(pnode_fork_sites + 8 * site)(%rip)
    .set site, site + 1
    .endr
    .align STUB_BYTES
    .size pnode_fork_stubs, . - pnode_fork_stubs

/* stubs.h. The kernel cleared the handlers of the child, so until ours are back nothing may touch the stack, which may be
 * far: what the registers had is in the block. Flags are kept, so nothing is compared. */
#define BLOCK_BUS 0
#define BLOCK_SYS 32
#define BLOCK_OPEN 64
#define BLOCK_SITE 72
#define BLOCK_RBX 80
#define BLOCK_RDI 88
#define BLOCK_RSI 96
#define BLOCK_RDX 104
#define BLOCK_R10 112
#define BLOCK_R8 120

    .macro take_back signal, action
    mov $SYS_rt_sigaction, %eax
    mov $\signal, %edi
    lea \action(%rbx), %rsi
    mov $0, %edx
    mov $8, %r10d
    syscall
    .endm

    .align 16
    .hidden pnode_clearing_stub
    .globl pnode_clearing_stub
    .type pnode_clearing_stub, @function
pnode_clearing_stub:
    syscall
    .hidden pnode_clearing_made
    .globl pnode_clearing_made
pnode_clearing_made:
    mov %rax, %r8
    mov %rax, %rcx
    jrcxz 1f
    jmp 2f
1:  take_back SIGBUS, BLOCK_BUS
    take_back SIGSYS, BLOCK_SYS
    arm_dispatch
    mov $0, %r8d
2:  mov $SYS_rt_sigprocmask, %eax
    mov $SIG_UNBLOCK, %edi
    lea BLOCK_OPEN(%rbx), %rsi
    mov $0, %edx
    mov $8, %r10d
    syscall
    mov %r8, %rax
    .hidden pnode_clearing_told
    .globl pnode_clearing_told
pnode_clearing_told:
    mov BLOCK_RDI(%rbx), %rdi
    mov BLOCK_RSI(%rbx), %rsi
    mov BLOCK_RDX(%rbx), %rdx
    mov BLOCK_R10(%rbx), %r10
    mov BLOCK_SITE(%rbx), %r11
    mov BLOCK_R8(%rbx), %r8
    mov BLOCK_RBX(%rbx), %rbx
    .hidden pnode_clearing_left
    .globl pnode_clearing_left
pnode_clearing_left:
    jmp *%r11
    .size pnode_clearing_stub, . - pnode_clearing_stub

    .align 16
    .hidden pnode_exit_stub
    .globl pnode_exit_stub
    .type pnode_exit_stub, @function
pnode_exit_stub:
    movl $0, (%rbx)
    mov $SYS_exit, %eax
    syscall
    hlt
    .size pnode_exit_stub, . - pnode_exit_stub

/* long pnode_open_call(number, arguments, open mask, closed mask, waiting): stubs.h. Between the two changes of the mask a signal may come
 * at any instruction, and what it interrupted does not go on: so it is told from the instruction pointer how far the call had come. What
 * came before is in `waiting`, which is therefore looked at in between. */
    .align 16
    .hidden pnode_open_call
    .globl pnode_open_call
    .type pnode_open_call, @function
pnode_open_call:
    push %rbx
    push %r12
    push %r13
    push %r14
    mov %rdi, %rbx
    mov %rsi, %r12
    mov %rcx, %r13
    mov %rdx, %rsi
    mov $SYS_rt_sigprocmask, %eax
    mov $SIG_SETMASK, %edi
    xor %edx, %edx
    mov $8, %r10d
    syscall
    .hidden pnode_open_first
    .globl pnode_open_first
pnode_open_first:
    mov $-ERESTARTNOINTR, %rax
    cmpq $0, (%r8)
    jne pnode_open_done
    mov %rbx, %rax
    mov (%r12), %rdi
    mov 8(%r12), %rsi
    mov 16(%r12), %rdx
    mov 24(%r12), %r10
    mov 32(%r12), %r8
    mov 40(%r12), %r9
    .hidden pnode_open_made
    .globl pnode_open_made
pnode_open_made:
    syscall
    .hidden pnode_open_done
    .globl pnode_open_done
pnode_open_done:
    mov %rax, %r14
    mov $SYS_rt_sigprocmask, %eax
    mov $SIG_SETMASK, %edi
    mov %r13, %rsi
    xor %edx, %edx
    mov $8, %r10d
    syscall
    .hidden pnode_open_end
    .globl pnode_open_end
pnode_open_end:
    mov %r14, %rax
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    ret
    .size pnode_open_call, . - pnode_open_call

    .section .note.GNU-stack, "", @progbits
