// One dispatched call, and where its thread goes on.
#pragma once

#include <ucontext.h>

#include <cstdint>

namespace pnode::preload {

// The program's registers at the instruction behind it.
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

}  // namespace pnode::preload
