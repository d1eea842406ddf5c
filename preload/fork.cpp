#include "preload/fork.h"

#include <nss.h>
#include <pthread.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "preload/arenas.h"
#include "preload/hooks.h"
#include "preload/jemalloc_fork.h"
#include "preload/mapping_state.h"
#include "preload/mappings.h"
#include "preload/shield/shield.h"
#include "preload/statistics.h"
#include "preload/thread_state.h"
#include "runtime/process.h"

// glibc's walk over all streams. Not in its headers, but in its ABI since 2.2; weak, because another libc has
// none and resets no stream either.
extern "C" {
[[gnu::weak]] void* _IO_iter_begin() noexcept;
[[gnu::weak]] void* _IO_iter_end() noexcept;
[[gnu::weak]] void* _IO_iter_next(void* at) noexcept;
[[gnu::weak]] FILE* _IO_iter_file(void* at) noexcept;
[[gnu::weak]] void _IO_list_lock() noexcept;
[[gnu::weak]] void _IO_list_unlock() noexcept;
}

namespace pnode::preload {
namespace {

constexpr std::size_t json_bytes_max = 4096;         // pn_stats_json() says so
constexpr std::size_t pages_a_stream = 3;            // the FILE may cross a page, its lock may be on another
constexpr std::size_t stack_below_bytes = 96 << 10;  // what a fork may use of the stack it runs on
constexpr std::size_t stack_above_bytes = 16 << 10;
constexpr std::size_t stack_pages = (stack_below_bytes + stack_above_bytes) / PN_PAGE_BYTES + 2;
constexpr std::size_t vtable_bytes = sizeof(void*);  // behind the FILE that the headers show

// Of the thread that forks, from its prepare handler to its parent or child handler.
struct Forking {
    ThreadState state;
    void** pages;  // a mapping of `mapped_bytes`; null when neither a stream nor the stack lies in the heap
    std::size_t mapped_bytes;
    std::size_t count;   // in `pages`
    std::size_t pinned;  // of these, the first: the stack's
};
__thread Forking forking __attribute__((tls_model("initial-exec"))) = {};

template <typename Visit>
void for_each_stream(Visit&& visit) noexcept {
    for (void* at = _IO_iter_begin(); at != _IO_iter_end(); at = _IO_iter_next(at)) visit(_IO_iter_file(at));
}

void pin_page(void* page) noexcept {
    if (pn_pin(heap_served(), page, PN_PAGE_BYTES) == 0) {
        forking.pages[forking.pinned++] = page;
        forking.count = forking.pinned;
        return;
    }
    // Pinned often enough, or no room to promise anything: near for now is all that can be had.
    [[maybe_unused]] const auto byte = *static_cast<volatile unsigned char*>(page);
}

void list_pages_of(const void* start, std::size_t bytes) noexcept {
    const auto first = reinterpret_cast<std::uintptr_t>(start);
    for (std::uintptr_t page = first & ~std::uintptr_t{PN_PAGE_BYTES - 1}; page < first + bytes;
         page += PN_PAGE_BYTES) {
        forking.pages[forking.count++] = reinterpret_cast<void*>(page);
    }
}

bool is_on_heap(Address at) noexcept {
    return at >= heap_range().first && at < heap_range().end;
}

// A heap that has no engine yet has no far page; and a pin would give it one.
bool heap_is_active() noexcept {
    char text[json_bytes_max];
    return pn_stats_json(heap_served(), text, sizeof(text)) == 0 &&
           std::strstr(text, "\"engine\": \"none\"") == nullptr;
}

// A thread may run on a stack that the program mapped or allocated; it is used while nobody serves a fault,
// from before the runtime's own handler on.
void pin_stack(Address here) noexcept {
    if (!is_on_heap(here) || !heap_is_active()) return;
    const Address page = here & ~page_mask;
    const Range around = Range{page - stack_below_bytes, page + stack_above_bytes}.within(heap_range());
    for_each_extent(heap_served(), around, [](Range part, const pn_extent_t& extent) {
        const bool usable = extent.kind == PN_EXTENT_BUFFER && extent.protection != PROT_NONE;
        for (Address at = part.first; usable && at < part.end; at += PN_PAGE_BYTES)
            pin_page(reinterpret_cast<void*>(at));
        return true;
    });
}

void list_stream(const FILE* stream) noexcept {
    if (!is_managed(stream)) return;
    list_pages_of(stream, sizeof(FILE) + vtable_bytes);
    list_pages_of(stream->_lock, 1);
}

// Room for the pages of each stream that lies in the heap, and of the stack, if it does. False when there is
// none, or no room.
bool map_pages(Address here) noexcept {
    std::size_t streams = 0;
    for_each_stream([&](const FILE* stream) { streams += is_managed(stream); });
    if (streams == 0 && !is_on_heap(here)) return false;
    const std::size_t bytes = (streams * pages_a_stream + stack_pages) * sizeof(void*);
    void* mapping = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return false;
    forking.pages = static_cast<void**>(mapping);
    forking.mapped_bytes = bytes;
    return true;
}

// libc's fork() resets the lock of every stream *in the child, before any handler runs there*, so before the
// runtime serves the child's pages: a stream on a far page would read as zeros, and its page would be lost.
// The runtime brings them near when nothing can leave any more. That is no pin: pins are the child's too, and
// one alone would have it watch its memory though nothing is far.
void keep_near() noexcept {
    if (_IO_iter_begin == nullptr || _IO_list_lock == nullptr) return;
    const auto here = reinterpret_cast<Address>(__builtin_frame_address(0));
    _IO_list_lock();
    if (map_pages(here)) {
        pin_stack(here);
        for_each_stream(list_stream);
        keep_near_at_fork(forking.pages + forking.pinned, forking.count - forking.pinned);
    }
    _IO_list_unlock();
}

void unpin() noexcept {
    for (std::size_t i = 0; i < forking.pinned; ++i) pn_unpin(heap_served(), forking.pages[i], PN_PAGE_BYTES);
    if (forking.pages != nullptr) munmap(forking.pages, forking.mapped_bytes);
    forking.pages = nullptr;
    forking.count = forking.pinned = 0;
}

// First of all prepare handlers: nothing is locked yet. From here to the end of the fork this thread stays
// out of jemalloc, whose locks it is about to hold.
void before_fork() noexcept {
    forking.state = thread_state;
    thread_state = thread_inside;
    mappings_hold();
    keep_near();
    hold_for_fork();
}

// Last of all, in the parent and in the child: everything is up again.
void after_fork() noexcept {
    unpin();
    mappings_let_go();
    thread_state = forking.state;
}

void after_fork_in_child() noexcept {
    jemalloc_fork_in_child();
    arenas_after_fork_in_child();
    shield_after_fork_in_child();
    mappings_after_fork_in_child();
    statistics_after_fork_in_child();
    after_fork();
}

// libc's fork() reads its name-service state after the last prepare handler, when the runtime serves nobody:
// on a far page it would wait for ever. libc allocates that state once, at the first look-up; so it is made
// to now, from the bootstrap arena, by a setting that is refused (a malformed line) only after the state was
// loaded.
void keep_name_service_near() noexcept {
    __nss_configure_lookup("aliases", "[");
}

}  // namespace

// Without room for the handlers (ENOMEM) nothing is pinned, and forks are as good as the runtime makes them.
void fork_prepare() noexcept {
    keep_name_service_near();
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

}  // namespace pnode::preload
