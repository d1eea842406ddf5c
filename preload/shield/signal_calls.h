// The system calls about signals, as a program makes them while SIGBUS and SIGSYS are ours: masks never close
// these two, handlers for them are kept and not installed, and the program is told what it asked for.
//
// Thread rule: from the handler of a dispatched call.
#pragma once

#include <ucontext.h>

#include <cstdint>

namespace pnode::preload {

// Each: as the kernel gives it. The mask that holds when the handler returns is the context's.
long change_mask(ucontext_t* context, const long (&arguments)[6]) noexcept;
long change_action(const long (&arguments)[6]) noexcept;

// The program returns from a handler of its own: the frame at its stack pointer must not close our two.
void open_returning_mask(std::uint64_t frame) noexcept;

// What the program has blocked in name is blocked while a new program starts (execve), and open again if none
// did.
class BlockedForExec {
  public:
    BlockedForExec() noexcept;
    ~BlockedForExec();
    BlockedForExec(const BlockedForExec&) = delete;
    BlockedForExec& operator=(const BlockedForExec&) = delete;

  private:
    bool changed_;
};

// The mask this process was started with.
void take_over_inherited_mask() noexcept;

}  // namespace pnode::preload
