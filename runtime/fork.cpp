// fork(): the child reads every byte as of the fork, without waiting for the parent. DESIGN 6.
//
// The forking thread shuts both gates, so no page is busy or in limbo and nobody holds a lock; fork then
// snapshots the page words, which are private memory. The parent opens the gates and owes a lease. The child
// opens its own userfaultfd, registers what was registered and starts its own threads before application code
// runs.
//
// Order of atfork handlers where an allocator sits on top (preload/README.md): ours are registered first, so
// that in prepare the allocator takes its locks before we shut the gates, and in the child we are up before
// it lets go.

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <string>

#include "runtime/heap.h"
#include "runtime/os/descriptors.h"
#include "runtime/os/runtime_scope.h"
#include "runtime/process.h"

namespace pnode {
namespace {

constexpr unsigned heaps_max = 256;
constinit std::atomic<Heap*> heaps[heaps_max];
constinit cxl::SpinLock heaps_lock;

// The forking thread's signals, from prepare to the end of fork: one thread at a time, guarded by heaps_lock.
unsigned long signals_before;

template <class Visit>
void for_each_heap(Visit visit) noexcept {
    for (std::atomic<Heap*>& entry : heaps) {
        if (Heap* heap = entry.load(std::memory_order_acquire)) visit(*heap);
    }
}

void block_signals() noexcept {
    const unsigned long all = ~(1UL << (SIGBUS - 1));
    unsigned long before = 0;
    ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof before);
    heaps_lock.lock();
    signals_before = before;
}

void restore_signals() noexcept {
    const unsigned long before = signals_before;
    heaps_lock.unlock();
    ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
}

void prepare(Heap& heap) noexcept {
    heap.activation_lock.lock();      // whoever activates needs neither gate
    heap.operations.shut_and_wait();  // while handlers still serve: an operation may wait for one
    heap.serving.shut_and_wait();
    heap.span_lock.lock();
    heap.statistics.fork_events.add();
    if (!heap.is_active()) return;
    heap.leases.prepare(heap.far.node()->store());
}

void after_in_parent(Heap& heap) noexcept {
    if (heap.is_active()) {
        heap.far.node()->store().unlock_all();
        heap.leases.parent();
        heap.shared_after_fork.store(true, std::memory_order_relaxed);
    }
    heap.span_lock.unlock();
    heap.serving.open();
    heap.operations.open();
    heap.activation_lock.unlock();
    if (heap.is_active()) heap.near.wake_evictor();  // it looks after the lease
}

}  // namespace

// Everything the child needs before it may touch a far page. What cannot be had ends the child: it must not
// run with wrong bytes.
void fork_child(Heap& heap) noexcept {
    heap.activation_lock.unlock();
    heap.span_lock.unlock();
    heap.operations.reset();
    heap.serving.reset();
    if (!heap.is_active()) return;
    heap.staging_.forget();
    heap.leases.child();
    heap.stats_file.leave_to_parent();
    heap.fault_threads.forget();
    heap.offload.forget();
    heap.evictor.forget();
    heap.hand_taken.store(false);
    heap.shared_after_fork.store(true, std::memory_order_relaxed);
    os::close_descriptor(heap.uffd.fd);
    heap.uffd.fd = -1;
    for (unsigned lane = 0; lane < ResolveLanes::count; ++lane)
        ResolveLanes::give_back(heap.resolve_lanes[lane]);
    for (unsigned lane = 0; lane < EvictLanes::count; ++lane) EvictLanes::give_back(heap.evict_lanes[lane]);
    heap.active.store(false);
    if (heap.tracked_chunks.load(std::memory_order_relaxed) == 0) {
        // Nothing was ever taken out: the child starts over, and pays when it needs to.
        heap.far.forget();
        return;
    }
    std::string message;
    const bool inherited = heap.far.become_child(&message);
    const int error = inherited ? heap.activate(&message) : EMFILE;
    if (error != 0) {
        report("a forked child cannot reach its far memory and ends: %s", message.c_str());
        ::_exit(127);
    }
    const std::uint64_t chunks = heap.page_count / heap.chunk_pages;
    for (std::uint64_t chunk = 0; chunk < chunks;) {
        if (heap.chunks.state(chunk) != ChunkState::tracked) {
            ++chunk;
            continue;
        }
        std::uint64_t end = chunk + 1;
        while (end < chunks && heap.chunks.state(end) == ChunkState::tracked) ++end;
        if (const int refused =
                watch_pages(heap, chunk * heap.chunk_pages, (end - chunk) * heap.chunk_pages)) {
            report("a forked child cannot watch its far memory and ends: errno %d", refused);
            ::_exit(127);
        }
        chunk = end;
    }
}

void fork_prepare() noexcept {
    block_signals();
    for_each_heap([](Heap& heap) { prepare(heap); });
}

void fork_parent() noexcept {
    const int saved_errno = errno;
    for_each_heap([](Heap& heap) { after_in_parent(heap); });
    restore_signals();
    errno = saved_errno;
}

void fork_child_all() noexcept {
    const os::RuntimeScope scope;
    for_each_heap([](Heap& heap) { fork_child(heap); });
    restore_signals();
}

void register_fork_handlers() noexcept {
    static std::atomic<bool> registered{false};
    if (registered.exchange(true)) return;
    ::pthread_atfork(fork_prepare, fork_parent, fork_child_all);
}

void register_heap(Heap& heap) noexcept {
    register_fork_handlers();
    const std::lock_guard lock(heaps_lock);
    for (std::atomic<Heap*>& entry : heaps) {
        if (entry.load(std::memory_order_relaxed) == nullptr) {
            entry.store(&heap, std::memory_order_release);
            return;
        }
    }
    report("more than %u heaps are open: a child would not see this one's far pages", heaps_max);
    std::abort();
}

void forget_heap(Heap& heap) noexcept {
    const std::lock_guard lock(heaps_lock);
    for (std::atomic<Heap*>& entry : heaps) {
        if (entry.load(std::memory_order_relaxed) == &heap) entry.store(nullptr, std::memory_order_release);
    }
}

Heap* heap_at(std::uint64_t address) noexcept {
    for (std::atomic<Heap*>& entry : heaps) {
        Heap* heap = entry.load(std::memory_order_acquire);
        if (heap != nullptr && heap->contains(address)) return heap;
    }
    return nullptr;
}

}  // namespace pnode
