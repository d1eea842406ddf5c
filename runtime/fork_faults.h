// The faults of a forked child from the moment its memory is copied until it has a thread that answers them.
//
// To start that thread libc reads the loader's lists (what each library keeps in thread-local storage), which
// the program's malloc gave and which may be far. Unwatched, they would read as zeros; watched, the child
// would wait for the very thread it starts. So until then a fault is a signal, and the child answers it where
// it stands.
//
// Thread rule: the child's only thread, with the operations gate shut.
#pragma once

#include "runtime/os/signal_actions.h"
#include "runtime/os/userfaultfd.h"

namespace pnode {

class Heap;

class ForkFaults {
  public:
    explicit ForkFaults(Heap& heap) noexcept : heap_(heap) {}
    ForkFaults(const ForkFaults&) = delete;
    ForkFaults& operator=(const ForkFaults&) = delete;

    // Watches every tracked page, by SIGBUS. 0 or an errno.
    int begin() noexcept;
    // Hands every tracked page to the heap's own descriptor; the program's SIGBUS is the program's again. 0
    // or an errno.
    int end() noexcept;

  private:
    Heap& heap_;
    os::UffdOpened by_signal_;
    os::SignalAction before_;
};

}  // namespace pnode
