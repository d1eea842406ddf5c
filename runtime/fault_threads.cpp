#include "runtime/fault_threads.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/heap.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {
namespace {

constexpr unsigned messages_max = 16;    // read at once
constexpr unsigned look_every = 64;      // faults between two looks at where the faulting thread runs
constexpr unsigned settle_after = 1024;  // faults in a row from one thread after which one handler suffices

void* align_page(const uffd_msg& message) noexcept {
    return reinterpret_cast<void*>(message.arg.pagefault.address & ~(page_bytes - 1));
}

// The processor a thread of ours runs on: field 39 of /proc/self/task/TID/stat (proc(5)); -1: it is gone.
int processor_of(std::uint32_t thread) noexcept {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/self/task/%u/stat", thread);
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    char text[1024];
    const ssize_t length = ::read(fd, text, sizeof text - 1);
    ::close(fd);
    if (length <= 0) return -1;
    text[length] = '\0';
    const char* at = std::strrchr(text, ')');  // the name may hold anything; after it come fields 3, 4, ...
    for (int field = 2; at != nullptr && field < 39; ++field) at = std::strchr(at + 1, ' ');
    return at != nullptr ? std::atoi(at + 1) : -1;
}

void run_on(int processor) noexcept {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (processor >= 0) CPU_SET(processor, &set);
    if (processor < 0) std::memset(&set, 0xff, sizeof set);
    ::sched_setaffinity(0, sizeof set, &set);  // refused (a smaller cpuset): slower, not wrong
}

}  // namespace

int FaultThreads::start(Heap& heap) noexcept {
    doorbell_ = heap.evict_lanes[0].staging + EvictLanes::count * batch_pages * page_bytes;
    const auto processors = static_cast<unsigned>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
    const unsigned wanted = std::min(threads_max, processors);
    awake_.store(1);
    for (unsigned index = 0; index < wanted; ++index) {
        handlers_[index] = Handler{this, &heap, index, -1, 0, 0, look_every};
        const int error = threads_[index].start(&FaultThreads::main, &handlers_[index]);
        if (error != 0 && index == 0) return error;
        if (error != 0) break;  // fewer handlers than wished
        count_.store(index + 1);
    }
    return 0;
}

void FaultThreads::stop(Heap& heap) noexcept {
    heap.stop.store(true);
    set_awake(threads_max);
    // One ring a handler: it serves the fault that the ring is and ends; the others go on until it is their
    // turn.
    for (unsigned ring = 0; ring < count_; ++ring) {
        os::drop_pages(doorbell_, page_bytes);
        ::madvise(doorbell_, page_bytes, MADV_POPULATE_READ);
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
    for (;;) {
        for (std::uint32_t awake = awake_.load(); handler.index >= awake; awake = awake_.load())
            os::futex_wait(awake_, awake);
        const ssize_t length = ::read(heap.uffd.fd, messages, sizeof messages);
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
        if (rung && heap.stop.load()) return;
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
        os::uffd_copy(heap.uffd.fd, align_page(message), lane.page, page_bytes, &done);
        return;
    }
    const std::uint64_t started_ns = os::now_ns();
    const FaultKind kind = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0
                               ? FaultKind::write_protected
                               : FaultKind::missing;
    const Resolved resolved = resolve(heap, heap.page_at(address), kind, lane);
    heap.statistics.faults.add();
    if (resolved == Resolved::fresh) heap.statistics.faults_fresh.add();
    if (resolved == Resolved::redundant) heap.statistics.faults_redundant.add();
    if (resolved == Resolved::gone) os::uffd_wake(heap.uffd.fd, align_page(message), page_bytes);
    heap.statistics.fault_ns.record(os::now_ns() - started_ns);
}

// Keeps the handler where the faults are. Another thread's fault wakes a second handler; a long row from one
// thread puts it to sleep again.
void FaultThreads::follow(Handler& handler, std::uint32_t thread) noexcept {
    const bool same = thread == handler.last_thread;
    handler.same_thread = same ? handler.same_thread + 1 : 0;
    handler.last_thread = thread;
    if (!same && handler.index == 0 && awake_.load(std::memory_order_relaxed) < count_ &&
        handler.since_look < look_every) {
        run_on(handler.processor = -1);
        set_awake(count_);
        return;
    }
    if (++handler.since_look < look_every) return;
    handler.since_look = 0;
    if (awake_.load(std::memory_order_relaxed) > 1) {
        if (handler.index == 0 && handler.same_thread >= settle_after) set_awake(1);
        return;
    }
    const int processor = processor_of(thread);
    if (processor >= 0 && processor != handler.processor) run_on(handler.processor = processor);
}

}  // namespace pnode
