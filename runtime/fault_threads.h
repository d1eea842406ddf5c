// The thread engine: the kernel queues a fault, a handler thread resolves it. Serves every access, the
// kernel's own included.
//
// Its cost is where the handler runs (FACTS.md: on the faulting processor a fault costs about 5 us, on
// another one 22 to 90). So while one thread faults, one handler is awake and follows that thread from
// processor to processor; when several threads fault, several handlers run free.
//
// Thread rule: start() and stop() by one thread at a time; the handlers have every signal blocked and never
// allocate.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/os/thread.h"

struct uffd_msg;

namespace pnode {

class Heap;
struct ResolveLane;

class FaultThreads {
  public:
    static constexpr unsigned threads_max = 4;

    // 0 or an errno; nothing is left running after an error.
    int start(Heap& heap) noexcept;
    // Ends the handlers; the caller makes sure that nobody faults on managed memory any more.
    void stop(Heap& heap) noexcept;
    // In a forked child: the parent's handlers are not here.
    void forget() noexcept;

    std::byte* doorbell() const noexcept { return doorbell_; }

  private:
    struct Handler {
        FaultThreads* owner;
        Heap* heap;
        unsigned index;
        int processor;              // it is pinned to, or -1
        std::uint32_t last_thread;  // that faulted here
        unsigned same_thread;       // faults in a row from it
        unsigned since_look;        // faults since its processor was looked up
    };
    static void* main(void* handler) noexcept;
    void run(Handler& handler) noexcept;
    void serve(Handler& handler, ResolveLane& lane, const uffd_msg& message) noexcept;
    void follow(Handler& handler, std::uint32_t thread) noexcept;
    void set_awake(unsigned count) noexcept;

    os::Thread threads_[threads_max];
    Handler handlers_[threads_max] = {};
    std::atomic<unsigned> count_{0};       // handlers started
    std::atomic<std::uint32_t> awake_{1};  // handlers with a lower index read the descriptor
    std::byte* doorbell_ = nullptr;        // a registered page nobody uses: touching it wakes a reader
};

}  // namespace pnode
