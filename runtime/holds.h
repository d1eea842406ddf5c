// Holds: pages that the kernel may touch on a thread's behalf stay near for the length of a system call. The
// inline engine serves faults of the program's own instructions only: to the kernel an absent page is EFAULT.
// So whoever makes a system call on managed memory brings it near first and holds it.
//
// A hold is a hazard, not a pin: the thread writes down which pages it means, then looks at their words; who
// takes a page out makes its word busy, then looks at what is written down. Both are sequentially consistent,
// so one of them sees the other: the thread waits for the page, or the evictor puts it back. Nothing is
// counted in the page, and a hold costs some stores and a load a page.
//
// A thread that leaves a system call without returning (siglongjmp, cancellation) leaves its hold behind; it
// is let go by the next hold that the thread makes further out, or when the frames are used up. Until then a
// few pages stay near.
//
// What the kernel touches at moments that nobody chooses (it writes a thread's number when the thread ends,
// and looks at rseq(2)'s area when it preempts it) is held as long as the thread lives. Who is about to start
// a thread holds for it, until it comes and takes that over. A thread lets go by ending: the kernel's last
// word to it is after its own, so its slot is free when nobody of its number is there any more.
//
// Thread rule: any thread, signal handlers too (frames nest). Nothing here allocates or locks.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/page_word.h"

namespace pnode {

class Heap;

inline constexpr unsigned held_ranges_max = 16;
inline constexpr unsigned hold_frames_max =
    8;  // system calls of one thread that are under way: signal handlers nest
// More than a process can have: its threads take four mappings each, a stack and an alternate one, each with
// its guard, and vm.max_map_count is 65530 where nobody raised it.
inline constexpr unsigned hold_threads_max = 16384;

// What the kernel and the thread itself use of a new stack before the thread has an alternate one for
// signals.
inline constexpr std::uint64_t first_frames_bytes = 64 << 10;

// Absolute page numbers, address / page_bytes.
struct HeldRange {
    os::Atomic<std::uint64_t> first{0};
    os::Atomic<std::uint64_t> end{0};
};

struct HoldFrame {
    os::Atomic<std::uint32_t> count{0};
    HeldRange ranges[held_ranges_max];
};

// What a thread holds as long as it lives.
enum class Lasting : std::uint8_t {
    number,        // set_tid_address(2), CLONE_CHILD_CLEARTID
    parts,         // rseq(2)'s area
    first_frames,  // the top of its stack, before it has an alternate one for signals
    storage,       // its thread-local storage, which handlers of ours use too
    // Of a thread that makes another, or a process: what clone(2), and who makes it, read and write.
    clone_arguments,
    clearing_clone,
    child_number,
    child_descriptor,
    number_in_child,  // while this thread waits for it
};
inline constexpr unsigned lasting_holds = 9;

struct alignas(64) ThreadHolds {
    enum Owner : std::uint32_t { nobody, changing, a_thread, a_thread_to_come, a_thread_that_ended };
    std::atomic<std::uint32_t> owner{nobody};
    os::Atomic<std::uint32_t> depth{0};       // frames in use; written by the thread itself
    std::atomic<std::uint64_t> stack_top{0};  // of a thread to come: how it finds this
    std::atomic<std::uint32_t> number{0};     // of a thread that ended
    os::Atomic<bool> lasts{false};            // is there any of these
    HeldRange lasting[lasting_holds];
    HoldFrame frames[hold_frames_max];
};

// What one system call touches, held from add() to the destructor.
class Hold {
  public:
    Hold() noexcept = default;
    ~Hold() {
        if (thread_ != nullptr) let_go();
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

    // Brings the managed pages of [address, address + bytes) near and keeps them. What lies in no heap costs
    // a comparison. How many pages had to be brought near.
    std::uint64_t add(std::uint64_t address, std::uint64_t bytes) noexcept {
        if (bytes == 0 || !may_be_managed(address, bytes)) return 0;
        return add_managed(address, bytes);
    }
    // All of it again, after an EFAULT: how many pages were not near any more.
    std::uint64_t look_again() noexcept;
    // The same without keeping it: for a call that does not return (a child of vfork() that becomes another
    // program would leave the hold to its parent).
    static std::uint64_t bring_near(std::uint64_t address, std::uint64_t bytes) noexcept;

    // In [lowest, highest) of all heaps' address spaces.
    static bool may_be_managed(std::uint64_t address, std::uint64_t bytes) noexcept {
        return address < highest.load(std::memory_order_relaxed) &&
               address + bytes > lowest.load(std::memory_order_relaxed);
    }
    // A heap whose pages are to be held. One thread at a time.
    static void widen(std::uint64_t address, std::uint64_t bytes) noexcept;

  private:
    struct Pages {
        std::uint64_t first;
        std::uint64_t end;
    };
    static Pages pages_of(std::uint64_t address, std::uint64_t bytes) noexcept;
    static std::atomic<std::uint64_t> lowest;
    static std::atomic<std::uint64_t> highest;
    std::uint64_t add_managed(std::uint64_t address, std::uint64_t bytes) noexcept;
    void enter() noexcept;
    void let_go() noexcept;

    ThreadHolds* thread_ = nullptr;
    unsigned frame_ = 0;
};

// ---- for the runtime ----

// Between what a thread wrote and what it looks at next: the two sides of a hold meet here.
inline void hold_fence() noexcept {
#if defined(PNODE_STEPPED)
    interleaving::fence();
#elif defined(__SANITIZE_THREAD__)
    static std::atomic<std::uint32_t> order{
        0};  // the sanitizer knows no fence, but a total order of changes to one word
    order.fetch_add(1);
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// Is the page written down by anybody? After the page's word was made busy, and a fence.
bool is_held(std::uint64_t absolute_page) noexcept;
bool any_holds() noexcept;
// visit(first, end) for each part of [first, end) that is held.
template <class Visit>
void for_each_held(std::uint64_t first, std::uint64_t end, Visit visit) noexcept;

// The calling thread holds this until it ends, or says it again (0 bytes: nothing any more). What lies in no
// heap costs a comparison.
void hold_while_alive(Lasting what, std::uint64_t address, std::uint64_t bytes) noexcept;

// Libc puts a thread's own structure, and its static thread-local storage below it, above the stack that it
// gives the thread. Where the structure ends, of the thread whose thread pointer that is: rseq(2)'s area is
// the last of it (glibc 2.35).
std::uint64_t end_of_storage(std::uint64_t thread_pointer) noexcept;
inline constexpr std::uint64_t storage_bytes_max = 128 * 1024;

// For a thread that is about to be made, on a stack that ends at `stack_top`.
struct ThreadToCome {
    std::uint64_t stack_top;
    std::uint64_t number_at;       // where the kernel writes its number, or 0
    std::uint64_t thread_pointer;  // that it will have, or 0
};
void hold_for_thread_to_come(const ThreadToCome& thread) noexcept;
// The calling thread's first call, with its stack pointer there. What lies between that and its thread
// pointer, if it is its stack, is held as long as it lives.
void take_over_holds(std::uint64_t stack_pointer) noexcept;

// The calling thread ends, with what it held last; or is the only one in a forked child.
void holds_end_thread() noexcept;
void holds_after_fork_in_child() noexcept;

extern ThreadHolds hold_threads[hold_threads_max];
extern std::atomic<std::uint32_t> hold_threads_end;  // none from here on was ever used
// The calling thread's; null before its first hold.
extern constinit thread_local ThreadHolds* my_holds __attribute__((tls_model("initial-exec")));

template <class Visit>
void for_each_held(std::uint64_t first, std::uint64_t end, Visit visit) noexcept {
    const std::uint32_t threads = hold_threads_end.load();
    for (std::uint32_t index = 0; index < threads; ++index) {
        ThreadHolds& thread = hold_threads[index];
        if (thread.owner.load() == ThreadHolds::nobody) continue;
        const auto visit_part = [&](const HeldRange& held) {
            const std::uint64_t from = held.first.load(std::memory_order_relaxed);
            const std::uint64_t to = held.end.load(std::memory_order_relaxed);
            if (from < end && to > first) visit(from > first ? from : first, to < end ? to : end);
        };
        if (thread.lasts.load()) {
            for (const HeldRange& held : thread.lasting) visit_part(held);
        }
        const std::uint32_t depth = thread.depth.load();
        for (std::uint32_t frame = 0; frame < depth; ++frame) {
            const HoldFrame& held = thread.frames[frame];
            const std::uint32_t count = held.count.load();
            for (std::uint32_t range = 0; range < count; ++range) visit_part(held.ranges[range]);
        }
    }
}

}  // namespace pnode
