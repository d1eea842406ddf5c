#include "preload/hooks.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "preload/arenas.h"
#include "preload/extents.h"
#include "preload/say.h"
#include "preload/thread_state.h"
#include "runtime/process.h"

namespace pnode::preload {
namespace {

constinit pn_heap* served_heap = nullptr;
constinit bool strict_limit = false;
// Set when the heap said for good that it cannot: all further extents are plain memory. Relaxed: a thread
// that sees it late asks once more and is told the same.
constinit std::atomic<bool> refused_for_good{false};

// The bounds of all buffers. A heap is one range of addresses, so nothing else of the process lies between
// them. Relaxed: an address reaches another thread through jemalloc's locks, which order these stores too.
constinit std::atomic<std::uintptr_t> lowest{UINTPTR_MAX};
constinit std::atomic<std::uintptr_t> end{0};

class KeepErrno {
  public:
    ~KeepErrno() { errno = value_; }

  private:
    int value_ = errno;
};

void note_bounds(std::uintptr_t first, std::uintptr_t past) noexcept {
    std::uintptr_t seen = lowest.load(std::memory_order_relaxed);
    while (first < seen && !lowest.compare_exchange_weak(seen, first, std::memory_order_relaxed)) {
    }
    seen = end.load(std::memory_order_relaxed);
    while (past > seen && !end.compare_exchange_weak(seen, past, std::memory_order_relaxed)) {
    }
}

void* map_plain(std::size_t bytes, std::size_t alignment) noexcept {
    const std::size_t mapped = bytes + alignment - PN_PAGE_BYTES;
    if (mapped < bytes) return nullptr;
    void* mapping =
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return nullptr;
    const auto first = reinterpret_cast<std::uintptr_t>(mapping);
    const std::uintptr_t start = (first + alignment - 1) & ~(alignment - 1);
    if (start > first) munmap(mapping, start - first);
    const std::uintptr_t tail = start + bytes;
    if (first + mapped > tail) munmap(reinterpret_cast<void*>(tail), first + mapped - tail);
    return reinterpret_cast<void*>(start);
}

// jemalloc's locks are held here: the thread sees to it when it is out of them.
void note_if_due() noexcept {
    if (thread_state == thread_ready &&
        (is_activation_due(served_heap) || is_change_of_decay_due(served_heap)))
        thread_state = thread_due;
}

// What takes memory of the heap, or gives it back, may change what is due.
template <typename Call>
int inside_runtime(Call&& call) noexcept {
    int error = 0;
    {
        const InsideRuntime inside;
        error = call();
    }
    note_if_due();
    return error;
}

int allocate_managed(std::size_t bytes, std::size_t alignment, void** out) noexcept {
    return inside_runtime([&] {
        const int error = allocate_under_locks(served_heap, bytes, alignment, out);
        // ENOMEM passes, and is nothing to report; any other answer says that this process cannot be managed.
        if (error != 0 && error != ENOMEM && !refused_for_good.exchange(true, std::memory_order_relaxed)) {
            say_unmanaged(error);
        }
        return error;
    });
}

void* allocate(extent_hooks_t*, void* wanted, std::size_t bytes, std::size_t alignment, bool* zero,
               bool* commit, unsigned) noexcept {
    if (wanted != nullptr) return nullptr;  // only the caches of the arena can extend in place
    const KeepErrno keep;
    void* extent = nullptr;
    if (!refused_for_good.load(std::memory_order_relaxed)) {
        const int error = allocate_managed(bytes, alignment, &extent);
        if (error == ENOMEM && strict_limit) return nullptr;
        if (error == 0) {
            const auto first = reinterpret_cast<std::uintptr_t>(extent);
            note_bounds(first, first + bytes);
        }
    }
    if (extent == nullptr) extent = map_plain(bytes, alignment);
    if (extent == nullptr) return nullptr;
    *zero = true;
    *commit = true;
    return extent;
}

// No other thread changes it.
Range range_of(void* extent, std::size_t bytes) noexcept {
    const auto first = reinterpret_cast<Address>(extent);
    return {first, first + bytes};
}

// Of what the program has lent to its own userfaultfd (userfaults.h) some may be among it: EINVAL.
int free_extent(void* extent, std::size_t bytes) noexcept {
    const int error = pn_buffer_free(served_heap, extent, bytes);
    if (error != EINVAL) return error;
    for_each_extent(served_heap, range_of(extent, bytes), [](Range part, const pn_extent_t& is) {
        if (is.kind == PN_EXTENT_HANDED_OUT) pn_take_back(served_heap, at(part), part.bytes());
        return true;
    });
    return pn_buffer_free(served_heap, extent, bytes);
}

int release_extent(void* extent, std::size_t bytes) noexcept {
    int error = pn_release(served_heap, extent, bytes);
    if (error != EINVAL) return error;
    error = 0;
    for_each_extent(served_heap, range_of(extent, bytes), [&](Range part, const pn_extent_t& is) {
        if (is.kind == PN_EXTENT_HANDED_OUT && madvise(at(part), part.bytes(), MADV_DONTNEED) != 0)
            error = errno;
        if (is.kind == PN_EXTENT_BUFFER) pn_release(served_heap, at(part), part.bytes());
        return true;
    });
    return error;
}

bool free_failed(void* extent, std::size_t bytes) noexcept {
    const KeepErrno keep;
    if (!is_managed(extent)) return munmap(extent, bytes) != 0;
    return inside_runtime([&] { return free_extent(extent, bytes); }) != 0;
}

// True refuses. What is smaller than an arena grows by is kept by jemalloc, which purges it then, so that its
// addresses are reused at once and the heap does not fall to pieces.
bool deallocate(extent_hooks_t*, void* extent, std::size_t bytes, bool, unsigned) noexcept {
    return bytes < arena_growth_bytes || free_failed(extent, bytes);
}

// Of an arena that is destroyed. A buffer that cannot be freed loses its contents at least.
void destroy(extent_hooks_t*, void* extent, std::size_t bytes, bool, unsigned) noexcept {
    if (!free_failed(extent, bytes) || !is_managed(extent)) return;
    const KeepErrno keep;
    const InsideRuntime inside;
    release_extent(extent, bytes);
}

// True when the pages still hold what they held.
bool purge(extent_hooks_t*, void* extent, std::size_t, std::size_t offset, std::size_t length,
           unsigned) noexcept {
    const KeepErrno keep;
    void* start = static_cast<unsigned char*>(extent) + offset;
    if (!is_managed(extent)) return madvise(start, length, MADV_DONTNEED) != 0;
    return inside_runtime([&] { return release_extent(start, length); }) != 0;
}

bool split(extent_hooks_t*, void*, std::size_t, std::size_t, std::size_t, bool, unsigned) noexcept {
    return false;
}

// True keeps two neighbours apart: plain memory beside the heap.
bool merge(extent_hooks_t*, void* a, std::size_t, void* b, std::size_t, bool, unsigned) noexcept {
    return is_managed(a) != is_managed(b);
}

}  // namespace

// No commit and decommit: pages are there or dropped. No lazy purge: dropped is dropped.
constinit extent_hooks_t heap_hooks = {allocate, deallocate, destroy, nullptr, nullptr,
                                       nullptr,  purge,      split,   merge};

void hooks_serve(pn_heap* heap, bool strict) noexcept {
    served_heap = heap;
    strict_limit = strict;
}

pn_heap* heap_served() noexcept {
    return served_heap;
}

bool is_managed(const void* address) noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    return at >= lowest.load(std::memory_order_relaxed) && at < end.load(std::memory_order_relaxed);
}

}  // namespace pnode::preload
