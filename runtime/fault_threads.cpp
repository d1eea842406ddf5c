#include "runtime/fault_threads.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "runtime/heap.h"
#include "runtime/os/processors.h"
#include "runtime/os/runtime_scope.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {
namespace {

constexpr unsigned messages_max = 16;   // read at once
constexpr unsigned window_faults = 64;  // between two looks at who faults, and where
constexpr unsigned switches_few = 4;    // in a window: one thread faults, others hardly

void* align_page(const uffd_msg& message) noexcept {
    return reinterpret_cast<void*>(message.arg.pagefault.address & ~(page_bytes - 1));
}

// -1: it is not known, or stands in memory that a handler would have to bring near.
int processor_of(std::uint32_t thread) noexcept {
    const std::uint64_t word = os::processor_word_of(thread);
    return heap_at(word) != nullptr ? -1 : os::processor_told_at(word);
}

void run_on(int processor) noexcept {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (processor >= 0) CPU_SET(processor, &set);
    if (processor < 0) std::memset(&set, 0xff, sizeof set);
    ::sched_setaffinity(0, sizeof set, &set);  // refused (a smaller cpuset): slower, not wrong
}

}  // namespace

// Who runs where at first; how many handlers there are to be.
unsigned FaultThreads::place_handlers(Heap& heap) noexcept {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    const bool known = ::sched_getaffinity(::getpid(), sizeof allowed, &allowed) == 0;
    const auto processors = static_cast<unsigned>(known ? CPU_COUNT(&allowed) : 0);
    const bool few = processors != 0 && processors <= threads_max;
    const unsigned wanted = few ? processors : threads_max;
    int processor = -1;
    for (unsigned index = 0; index < wanted; ++index) {
        if (few) {
            do ++processor;
            while (!CPU_ISSET(processor, &allowed));
        }
        handlers_[index] = Handler{this, &heap, index, few, processor, 0, 0, 0};
    }
    awake_.store(few ? wanted : 1);
    return wanted;
}

int FaultThreads::start(Heap& heap, int fd, unsigned now) noexcept {
    fd_ = fd;
    doorbell_ = heap.staging_address() + Heap::staging_bytes();
    wanted_ = place_handlers(heap);
    rest_.store(now < wanted_ ? Rest::left_out : Rest::none, std::memory_order_relaxed);
    return start_up_to(std::min(now, wanted_));
}

// The inline engine has no use for a doorbell: it may be watched by neither after an error.
int FaultThreads::start_on(Heap& heap, int fd, int former) noexcept {
    const os::RuntimeScope scope;  // a thread's start allocates
    std::byte* const doorbell = heap.staging_address() + Heap::staging_bytes();
    int error = os::uffd_unregister(former, doorbell, page_bytes);
    if (error == 0) error = os::uffd_register(fd, doorbell, page_bytes, UFFDIO_REGISTER_MODE_MISSING);
    return error != 0 ? error : start(heap, fd, threads_max);
}

// An error only where there is no handler at all: fewer than wished will do.
int FaultThreads::start_up_to(unsigned count) noexcept {
    for (unsigned index = count_.load(); index < count; ++index) {
        const int error = threads_[index].start(&FaultThreads::main, &handlers_[index]);
        if (error != 0) return index == 0 ? error : 0;
        count_.store(index + 1);
    }
    return 0;
}

void FaultThreads::start_rest() noexcept {
    if (rest_.load(std::memory_order_relaxed) != Rest::due) return;
    rest_.store(Rest::none, std::memory_order_relaxed);
    const os::RuntimeScope scope;  // a thread's start allocates
    start_up_to(wanted_);
}

void FaultThreads::settle() noexcept {
    for (os::Thread& thread : threads_) thread.settle();
}

void FaultThreads::stop() noexcept {
    ending_.store(true);
    set_awake(threads_max);
    // One ring a handler: it serves the fault that the ring is and ends; the others go on until it is their
    // turn.
    for (unsigned ring = 0; ring < count_; ++ring) {
        os::drop_pages(doorbell_, page_bytes);
        os::populate(doorbell_, page_bytes, os::Populate::read);
    }
    for (unsigned index = 0; index < count_; ++index) threads_[index].join();
    count_ = 0;
}

void FaultThreads::forget() noexcept {
    for (os::Thread& thread : threads_) thread.forget();
    count_ = 0;
}

void* FaultThreads::main(void* argument) noexcept {
    Handler& handler = *static_cast<Handler*>(argument);
    handler.owner->run(handler);
    return nullptr;
}

void FaultThreads::set_awake(unsigned count) noexcept {
    awake_.store(count);
    os::futex_wake_all(awake_);
}

void FaultThreads::run(Handler& handler) noexcept {
    Heap& heap = *handler.heap;
    ResolveLane& lane =
        heap.resolve_lanes[handler.index];  // taken for as long as the thread lives (Heap::activate)
    uffd_msg messages[messages_max];
    if (handler.stays) run_on(handler.processor);
    for (;;) {
        for (std::uint32_t awake = awake_.load(); handler.index >= awake; awake = awake_.load())
            os::futex_wait(awake_, awake);
        const ssize_t length = os::uffd_read(fd_, messages, sizeof messages);
        if (length < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (length < 0) {
            report("reading faults failed with errno %d: the process cannot go on", errno);
            std::abort();
        }
        const auto count = static_cast<unsigned>(static_cast<std::size_t>(length) / sizeof(uffd_msg));
        bool rung = false;
        {
            const Inside inside(heap.serving);
            for (unsigned index = 0; index < count; ++index) {
                rung |= align_page(messages[index]) == doorbell_;
                serve(handler, lane, messages[index]);
            }
            make_room(heap, Evicting::handler);
        }
        if (rung && ending_.load()) return;
        if (rest_.load(std::memory_order_relaxed) == Rest::left_out) {
            rest_.store(Rest::due, std::memory_order_relaxed);  // the evictor's wake-up orders it
            heap.near.wake_evictor();
        }
        if (count != 0) follow(handler, messages[count - 1].arg.pagefault.feat.ptid);
    }
}

void FaultThreads::serve(Handler& handler, ResolveLane& lane, const uffd_msg& message) noexcept {
    Heap& heap = *handler.heap;
    if (message.event != UFFD_EVENT_PAGEFAULT) return;
    const std::uint64_t address = message.arg.pagefault.address;
    if (!heap.contains(address)) {
        // Staging: only the doorbell is ever touched while it is absent.
        std::size_t done = 0;
        os::uffd_copy(fd_, align_page(message), lane.pages, page_bytes, &done);
        return;
    }
    const std::uint64_t started_ns = os::now_ns();
    const std::uint64_t flags = message.arg.pagefault.flags;
    const FaultKind kind = (flags & UFFD_PAGEFAULT_FLAG_WP) != 0      ? FaultKind::write_protected
                           : (flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0 ? FaultKind::missing_to_write
                                                                      : FaultKind::missing;
    const std::uint64_t page = heap.page_at(address);
    const Resolved resolved = resolve(heap, page, kind, lane, run_at(page));
    heap.statistics.faults.add();
    if (resolved == Resolved::fresh) heap.statistics.faults_fresh.add();
    if (resolved == Resolved::redundant) heap.statistics.faults_redundant.add();
    if (resolved == Resolved::gone) os::uffd_wake(fd_, align_page(message), page_bytes);
    heap.statistics.fault_ns.record(os::now_ns() - started_ns);
}

// How many pages a fault on this one is to bring near.
unsigned FaultThreads::run_at(std::uint64_t page) noexcept {
    const std::lock_guard lock(streams_lock_);
    return streams_.run_at(page);
}

// Keeps the handler where the faults are.
void FaultThreads::follow(Handler& handler, std::uint32_t thread) noexcept {
    if (handler.stays) return;
    const bool same = thread == handler.last_thread;
    handler.last_thread = thread;
    handler.switches += same ? 0 : 1;
    const bool window_ends = ++handler.window >= window_faults;
    if (same && !window_ends) return;
    if (window_ends) {
        if (handler.index == 0) set_awake(handler.switches > switches_few ? count_.load() : 1);
        handler.window = handler.switches = 0;
    }
    const int processor = awake_.load(std::memory_order_relaxed) == 1 ? processor_of(thread) : -1;
    if (processor != handler.processor) run_on(handler.processor = processor);
}

}  // namespace pnode
