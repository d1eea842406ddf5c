// A running heap goes from the inline engine to handler threads, for good: its program turned out to need the
// kernel's own accesses served at moments that nobody can hold pages for (io_uring).
//
// Nobody is stopped. Between taking a range off one userfaultfd and putting it on the other the kernel would
// fill a far page with zeros; so at that moment the range has no far page. Piece by piece, from the heap's
// start to its end, with both gates shut (as for a fork: no page is busy or in limbo, and none leaves):
//
//   1. What is far comes near, and nothing stays write-protected. Every page whose contents we keep is in
//      place: an access, the program's or the kernel's, whoever makes it and whenever it began, finds it.
//   2. The piece changes over. What is absent meanwhile is fresh, and zeros are what it holds.
//   3. Fresh pages that came into being meanwhile are found by mincore(2), as when a chunk is tracked.
//   4. The gates open, and room is made again: near pages pass the limit by a piece at most.
//
// While it goes on, pages below `boundary()` are watched by the heap's new descriptor and served by handler
// threads, those from there on by the former one and inline. COPY and WRITEPROTECT ask only that a range is
// registered, by whichever descriptor of the process. MOVE asks it of the destination by this one: that is
// staging, and where it is the heap, COPY stands in (return_near, relocate). Who registers asks
// descriptor_of(). Waking is by the new one: inline nobody sleeps. The boundary moves with the gates shut.
//
// A thread whose access raised SIGBUS before and is served after finds that the page has changed over and
// makes the access again. What a system call under way holds stays held.
//
// The descriptor is opened before anything else. A process that shares this memory but has a table of
// descriptors of its own would not have it: the caller knows of those (Everybody), and is waited for or
// refused.
//
// If a piece cannot change over (vm.max_map_count), those that did go back the same way. If that fails too,
// or a piece can be put on neither, the process ends with a line.
//
// Thread rule: ask() by any thread that holds none of the heap's locks; the rest by the evictor, for starting
// threads takes locks of libc's that the thread that asks may hold.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/os/userfaultfd.h"

namespace pnode {

class Heap;

class EngineChange {
  public:
    // Does every thread and process that has this memory have this process's descriptors?
    using Everybody = bool (*)() noexcept;

    // Waits for the change: two seconds until it begins, then as long as it takes. Do handler threads serve
    // the heap now?
    bool ask(Heap& heap, Everybody has_descriptors) noexcept;
    bool is_asked_for() const noexcept { return stage_.load(std::memory_order_relaxed) == asked; }
    // By the evictor, with nothing held: the change, if it was asked for.
    void make_if_asked(Heap& heap) noexcept;
    // Was the heap ever served inline, and is not any more?
    bool is_made() const noexcept { return made_.load(std::memory_order_acquire); }
    bool is_under_way() const noexcept { return boundary() != nowhere; }
    // Of a heap that was served inline when the access was made: is the page handler threads' by now? Inside
    // a gate, as the two below.
    bool has_changed(std::uint64_t page) const noexcept {
        return is_made() || (is_under_way() && page < boundary());
    }
    // Pages below are watched by the heap's descriptor. Above all pages, when there is no change under way.
    std::uint64_t boundary() const noexcept { return boundary_.load(); }
    int descriptor_of(const Heap& heap, std::uint64_t page) const noexcept;
    // In a forked child, for which nothing was under way: who asked is not there.
    void forget() noexcept { stage_.store(idle); }

  private:
    // Until it is `moving` who asked may take it back.
    enum Stage : std::uint32_t { idle, asked, starting, moving };
    static constexpr std::uint64_t nowhere = ~std::uint64_t{0};
    int make(Heap& heap) noexcept;
    int wait_for_everybody() const noexcept;
    int begin(Heap& heap, os::UffdOpened& other) noexcept;
    int move_pieces(Heap& heap, os::UffdOpened& other) noexcept;
    void undo(Heap& heap, os::UffdOpened& other) noexcept;
    void end(Heap& heap) noexcept;
    bool replace(std::uint32_t from, std::uint32_t to) noexcept;

    std::atomic<std::uint32_t> stage_{idle};
    std::atomic<Everybody> everybody_{nullptr};
    std::atomic<bool> made_{false};
    std::atomic<std::uint64_t> boundary_{nowhere};
    int former_fd_ = -1;  // changed with the gates shut
};

// Before a heap is active: it will be served by handler threads. With the activation lock. False: no right to
// a full userfaultfd, and nothing has changed.
bool choose_handler_threads(Heap& heap) noexcept;

}  // namespace pnode
