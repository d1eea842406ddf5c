// The thread engine: the kernel queues a fault, a handler thread resolves it. Serves every access, the
// kernel's own included.
//
// Its cost is where the handler runs: on the faulting processor a fault costs a third to a tenth of what it
// costs on another one that sleeps. Where there are few processors each has a handler of its own: all are
// woken, and the one on the spot is first. Where there are many that would be a stampede: there one handler
// follows the thread that faults from processor to processor, and while several threads fault, several
// handlers run free.
//
// A forked child may never touch a far page, so it starts one handler, and the rest after the first fault.
// One it must have before its own code runs: the kernel's own access to a far page (read(2) into one) raises
// no signal that could start anything, it only queues a message. And no handler may start another: libc takes
// locks for it that a thread may hold which waits for this very handler. The evictor does (start_rest).
//
// Thread rule: start(), start_rest() and stop() by one thread at a time; the handlers have every signal
// blocked and never allocate.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cxl/spin_lock.h"
#include "runtime/os/thread.h"
#include "runtime/streams.h"

struct uffd_msg;

namespace pnode {

class Heap;
struct ResolveLane;

class FaultThreads {
  public:
    static constexpr unsigned threads_max = 4;

    // At most `now` handlers of what `fd` tells. 0 or an errno; nothing is left running after an error.
    int start(Heap& heap, int fd, unsigned now) noexcept;
    // All of them, for a heap that is watched by another descriptor still: only the doorbell changes over.
    int start_on(Heap& heap, int fd, int former) noexcept;
    // The handlers start() left out, if there were faults since. May wait for libc's locks: no gate is held.
    void start_rest() noexcept;
    // For a thread that is about to fork: whoever was started has begun.
    void settle() noexcept;
    // Ends the handlers; the caller makes sure that nobody faults on managed memory any more.
    void stop() noexcept;
    // In a forked child: the parent's handlers are not here.
    void forget() noexcept;

  private:
    struct Handler {
        FaultThreads* owner;
        Heap* heap;
        unsigned index;
        bool stays;                 // on its processor, for good
        int processor;              // it is pinned to, or -1
        std::uint32_t last_thread;  // that faulted here
        unsigned switches;          // to another thread, in this window
        unsigned window;            // faults since the last look at who faults, and where
    };
    // Handlers that start() left out: the first fault makes them due, the evictor starts them.
    enum class Rest : std::uint8_t { none, left_out, due };
    static void* main(void* handler) noexcept;
    unsigned place_handlers(Heap& heap) noexcept;
    int start_up_to(unsigned count) noexcept;
    void run(Handler& handler) noexcept;
    void serve(Handler& handler, ResolveLane& lane, const uffd_msg& message) noexcept;
    unsigned run_at(std::uint64_t page) noexcept;
    void follow(Handler& handler, std::uint32_t thread) noexcept;
    void set_awake(unsigned count) noexcept;

    os::Thread threads_[threads_max];
    Handler handlers_[threads_max] = {};
    cxl::SpinLock streams_lock_;  // no handler is inside when a process forks (Heap::serving)
    Streams streams_;
    int fd_ = -1;  // written before any handler runs
    std::atomic<bool> ending_{false};
    std::atomic<unsigned> count_{0};       // handlers started
    unsigned wanted_ = 0;                  // to be started in all; written before any handler runs
    std::atomic<Rest> rest_{Rest::none};   // of the handlers
    std::atomic<std::uint32_t> awake_{1};  // handlers with a lower index read the descriptor
    std::byte* doorbell_ = nullptr;        // a registered page nobody uses: touching it wakes a reader
};

}  // namespace pnode
