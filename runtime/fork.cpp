// fork(): the child reads every byte as of the fork, without waiting for the parent. DESIGN 6.
//
// The forking thread shuts both gates, so no page is busy or in limbo and nobody holds a lock; fork then
// snapshots the page words, which are private memory. The parent opens the gates and owes a lease. The child,
// if anything is far, opens its own userfaultfd, registers what was registered and starts a handler before
// application code runs; if nothing is, it starts over.
//
// Order of atfork handlers where an allocator sits on top (preload/README.md): ours are registered first, so
// that in prepare the allocator takes its locks before we shut the gates, and in the child we are up before
// it lets go.

#include <langinfo.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <string>
#include <utility>

#include "runtime/each_word.h"
#include "runtime/fork_faults.h"
#include "runtime/heap.h"
#include "runtime/holds.h"
#include "runtime/os/descriptors.h"
#include "runtime/os/runtime_scope.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/process.h"

namespace pnode {
namespace {

constexpr unsigned heaps_max = 256;
constinit std::atomic<Heap*> heaps[heaps_max];
constinit cxl::SpinLock heaps_lock;

thread_local bool forking_here __attribute__((tls_model("initial-exec"))) = false;
thread_local bool held_for_fork __attribute__((tls_model("initial-exec"))) = false;

// Heaps are never removed from below the end: a look-up takes as many loads as there were ever heaps at once.
constinit std::atomic<unsigned> heaps_end{0};

// The forking thread's signals, from prepare to the end of fork: one thread at a time, guarded by heaps_lock.
unsigned long signals_before;
long forking_process;

// What keep_near_at_fork() was told; the forking thread's, guarded as signals_before is.
void* const* near_at_fork = nullptr;
std::size_t near_at_fork_count = 0;

template <class Visit>
void for_each_heap(Visit visit) noexcept {
    for (unsigned index = 0; index < heaps_end.load(); ++index) {
        if (Heap* heap = heaps[index].load(std::memory_order_acquire)) visit(*heap);
    }
}

void hold_signals() noexcept {
    const unsigned long before = os::block_signals();
    heaps_lock.lock();
    signals_before = before;
}

void restore_signals() noexcept {
    const unsigned long before = signals_before;
    near_at_fork_count = 0;
    held_for_fork = false;
    heaps_lock.unlock();
    os::block_signals(before);
}

// With the gates shut nothing that comes near can leave again.
void bring_near_at_fork(Heap& heap) noexcept {
    LentResolveLane lane(heap.resolve_lanes);
    for (std::size_t index = 0; index < near_at_fork_count; ++index) {
        const auto address = reinterpret_cast<std::uint64_t>(near_at_fork[index]);
        if (!heap.contains(address)) continue;
        const std::uint64_t page = heap.page_at(address);
        if (heap.word(page).load().state() == PageState::far) resolve(heap, page, FaultKind::asked, *lane);
    }
}

void settle_threads(Heap& heap) noexcept {
    heap.fault_threads.settle();
    heap.evictor.settle();
    heap.recompressor.settle();
}

void prepare(Heap& heap) noexcept {
    settle_threads(heap);
    heap.operations.shut_and_wait();  // while handlers still serve: an operation may wait for one
    heap.serving.shut_and_wait();
    if (near_at_fork_count != 0 && heap.is_active()) bring_near_at_fork(heap);
    heap.span_lock.lock();
    heap.statistics.fork_events.add();
}

// Heaps may share a node: the first of them locks its store, and unlocks it.
bool is_first_on_its_node(Heap& heap) noexcept {
    Heap* first = nullptr;
    for_each_heap([&](Heap& other) {
        if (first == nullptr && other.is_active() && other.far.node() == heap.far.node()) first = &other;
    });
    return first == &heap;
}

// With every gate shut, and before any store is locked.
void expire_leases(Heap& heap) noexcept {
    if (heap.is_active()) heap.leases.expire(heap.far.node()->store());
}

void lease(Heap& heap) noexcept {
    if (!heap.is_active()) return;
    cxl::BlobStore& store = heap.far.node()->store();
    if (is_first_on_its_node(heap)) store.lock_all();
    heap.leases.prepare(store);
}

// Before any heap goes on: who is first must be who was.
void unlock_store(Heap& heap) noexcept {
    if (heap.is_active() && is_first_on_its_node(heap)) heap.far.node()->store().unlock_all();
}

void after_in_parent(Heap& heap) noexcept {
    if (heap.is_active()) heap.leases.parent();
    heap.span_lock.unlock();
    heap.serving.open();
    heap.operations.open();
    heap.activation_lock.unlock();
    // It looks after the lease. That it is awake makes each page dearer that is copied now: its processor
    // has to be interrupted.
    if (heap.is_active() && !heap.near.evictor_looks_soon()) heap.near.wake_evictor();
}

// What the child's copy says about threads that are not here.
void forget_threads(Heap& heap) noexcept {
    heap.fault_threads.forget();
    heap.evictor.forget();
    heap.near.forget_evictor();
    heap.read_ahead.forget();
    heap.recompressor.forget();
    heap.packing.forget();
    heap.hand_taken.store(false);
    for (unsigned lane = 0; lane < ResolveLanes::count; ++lane)
        ResolveLanes::give_back(heap.resolve_lanes[lane]);
    for (unsigned lane = 0; lane < EvictLanes::count; ++lane) EvictLanes::give_back(heap.evict_lanes[lane]);
}

std::uint64_t allocated_pages(Heap& heap) noexcept {
    std::uint64_t pages = 0;
    for (std::uint64_t chunk = 0; chunk < heap.page_count / heap.chunk_pages; ++chunk)
        pages += heap.chunks.allocated_pages(chunk);
    return pages;
}

// Nothing is far, lost or promised: what is absent reads as zeros, as it would without us.
bool nothing_to_watch(Heap& heap) noexcept {
    if (heap.tracked_chunks.load(std::memory_order_relaxed) == 0) return true;
    const Statistics& statistics = heap.statistics;
    if (statistics.far_pages.value() != 0 || statistics.pinned_pages.value() != 0 ||
        statistics.poisoned.value() != 0)
        return false;
    // Unwatched, every allocated page is charged, touched or not: it may be too much.
    return allocated_pages(heap) <= heap.near.high_pages();
}

// Pages of zeros that were there and left: nothing of ours will say so any more, so the kernel is told, by
// its own page of zeros. Where that cannot be read nobody sees the difference but by asking (mincore(2)).
void put_back_zeros(Heap& heap) noexcept {
    if (heap.statistics.demotions_zero.value() == 0) return;
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    const auto put_back = [&] {
        if (first != end)
            os::populate(heap.address_of(first), (end - first) * page_bytes, os::Populate::read);
    };
    for_each_word(heap, 0, [&](std::uint64_t page, PageWord word) {
        if (!word.is_emptied()) return true;
        if (page != end) put_back();
        if (page != end) first = page;
        end = page + 1;
        return true;
    });
    put_back();
}

// The child starts as a heap does, with everything near, nothing watched and no thread, and pays when it
// needs to. Blobs that near pages kept are the parent's.
void start_over(Heap& heap) noexcept {
    heap.far.forget();
    if (heap.tracked_chunks.load(std::memory_order_relaxed) == 0) return;
    put_back_zeros(heap);
    const std::uint64_t chunk_end = heap.page_count / heap.chunk_pages;
    heap.chunks.for_each_tracked_run(chunk_end, [&](std::uint64_t chunk, std::uint64_t chunks) {
        os::drop_pages(&heap.word(chunk * heap.chunk_pages),
                       chunks * heap.chunk_pages * sizeof(AtomicPageWord));  // all fresh
        for (std::uint64_t end = chunk + chunks; chunk < end; ++chunk)
            heap.chunks.set_state(chunk, ChunkState::untracked);
    });
    heap.tracked_chunks.store(0);
    heap.statistics.kept_blob_bytes.subtract(heap.statistics.kept_blob_bytes.value());
    heap.near.discharge(heap.near.pages());
    heap.near.charge(allocated_pages(heap), heap.statistics);
}

// What cannot be had ends the child: it must not run with wrong bytes.
[[noreturn]] void end_child(const char* why, int error) noexcept {
    report("a forked child cannot reach its far memory and ends: %s (errno %d)", why, error);
    ::_exit(127);
}

// libc's start of a thread reads the head of the global locale's LC_CTYPE, which the program's malloc gave,
// with all signals blocked: a fault there would end the child, or wait for the thread that has it. The
// codeset is some words behind what that reads.
void read_what_a_thread_begins_with() noexcept {
    const locale_t programs = ::uselocale(LC_GLOBAL_LOCALE);
    ::nl_langinfo(CODESET);
    ::uselocale(programs);
}

// Watched as the parent watches, before anybody in the child can touch a far page.
void go_on(Heap& heap) noexcept {
    std::string message;
    if (!heap.far.become_child(&message)) end_child(message.c_str(), EMFILE);
    if (const int error = os::reopen_userfaultfd(heap.uffd)) end_child("no userfaultfd", error);
    heap.operations.shut_and_wait();  // the evictor, until there is somebody to answer for what it takes out
    ForkFaults faults(heap);
    if (const int error = faults.begin()) end_child("its pages cannot be watched", error);
    if (heap.engine == Engine::thread) read_what_a_thread_begins_with();
    if (const int error = heap.activate(&message, 1)) end_child(message.c_str(), error);
    if (heap.engine == Engine::thread) settle_threads(heap);  // as long as what they read stays near
    if (const int error = faults.end()) end_child("its pages cannot be watched", error);
    heap.operations.open();
}

}  // namespace

bool is_forking_here() noexcept {
    return forking_here;
}

bool is_child_to_be() noexcept {
    return forking_here && forking_process != os::system_call(SYS_getpid);
}

void fork_child(Heap& heap) noexcept {
    heap.activation_lock.unlock();
    heap.span_lock.unlock();
    heap.operations.reset();
    heap.serving.reset();
    heap.stats_file.leave_to_parent();
    if (!heap.is_active()) return;
    heap.staging_.forget();
    heap.leases.child();
    forget_threads(heap);
    heap.offload.forget();
    heap.engine_change.forget();
    heap.near.forget_total();
    heap.leased_pages.clear();
    heap.end_epochs();
    heap.active.store(false);
    os::close_descriptor(heap.uffd.fd);  // the parent's
    heap.uffd.fd = -1;
    os::close_descriptor(std::exchange(heap.page_map, -1));
    nothing_to_watch(heap) ? start_over(heap) : go_on(heap);
}

void fork_prepare() noexcept {
    if (!held_for_fork) hold_for_fork();
    forking_process = os::system_call(SYS_getpid);
    forking_here = true;
    for_each_heap([](Heap& heap) { prepare(heap); });
    for_each_heap([](Heap& heap) { expire_leases(heap); });
    for_each_heap([](Heap& heap) { lease(heap); });
}

void fork_parent() noexcept {
    const int saved_errno = errno;
    for_each_heap([](Heap& heap) { unlock_store(heap); });
    for_each_heap([](Heap& heap) { after_in_parent(heap); });
    forking_here = false;
    restore_signals();
    errno = saved_errno;
}

void fork_child_all() noexcept {
    const os::RuntimeScope scope;
    forking_process = os::system_call(SYS_getpid);
    os::Thread::forget_all();
    holds_after_fork_in_child();
    os::signal_actions_after_fork_in_child();
    for_each_heap([](Heap& heap) { fork_child(heap); });
    forking_here = false;
    restore_signals();
}

// Whoever activates needs neither gate, and no lock that is held here.
void hold_for_fork() noexcept {
    hold_signals();
    for_each_heap([](Heap& heap) { heap.activation_lock.lock(); });
    held_for_fork = true;
}

void keep_near_at_fork(void* const* pages, std::size_t count) noexcept {
    near_at_fork = pages;
    near_at_fork_count = count;
}

void register_fork_handlers() noexcept {
    static std::atomic<bool> registered{false};
    if (registered.exchange(true)) return;
    ::pthread_atfork(fork_prepare, fork_parent, fork_child_all);
}

void register_heap(Heap& heap) noexcept {
    register_fork_handlers();
    const std::lock_guard lock(heaps_lock);
    for (unsigned index = 0; index < heaps_max; ++index) {
        if (heaps[index].load(std::memory_order_relaxed) != nullptr) continue;
        heaps[index].store(&heap, std::memory_order_release);
        if (index >= heaps_end.load()) heaps_end.store(index + 1);
        if (heap.config.engine == PN_ENGINE_INLINE)
            Hold::widen(reinterpret_cast<std::uint64_t>(heap.base), heap.page_count * page_bytes);
        return;
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

bool serve_by_handler_threads(bool (*everybody_has_descriptors)() noexcept) noexcept {
    bool all = true;
    const os::SignalsBlocked signals;
    {
        const std::lock_guard lock(heaps_lock);
        for_each_heap([&](Heap& heap) {
            const std::lock_guard activation(heap.activation_lock);
            if (!heap.is_active()) all = choose_handler_threads(heap) && all;
        });
    }
    // From here on none becomes active inline. Without the lock, which a fork takes.
    for_each_heap([&](Heap& heap) {
        if (all && heap.is_active()) all = heap.engine_change.ask(heap, everybody_has_descriptors);
    });
    return all;
}

void lock_heaps() noexcept {
    heaps_lock.lock();
}

void unlock_heaps() noexcept {
    heaps_lock.unlock();
}

void keep_heaps_unmerged() noexcept {
    for_each_heap([](Heap& heap) { os::keep_unmerged(heap.base, heap.page_count * page_bytes); });
}

Heap* heap_at(std::uint64_t address) noexcept {
    const unsigned end = heaps_end.load(std::memory_order_acquire);
    for (unsigned index = 0; index < end; ++index) {
        Heap* heap = heaps[index].load(std::memory_order_acquire);
        if (heap != nullptr && heap->contains(address)) return heap;
    }
    return nullptr;
}

}  // namespace pnode
