#include "preload/process.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "preload/arenas.h"
#include "preload/fork.h"
#include "preload/hooks.h"
#include "preload/jemalloc.h"
#include "preload/mappings.h"
#include "preload/say.h"
#include "preload/settings.h"
#include "preload/shield/shield.h"
#include "preload/statistics.h"
#include "preload/thread_state.h"
#include "runtime/os/runtime_scope.h"
#include "runtime/os/userfaultfd.h"
#include "runtime/process.h"

namespace pnode::preload {

__thread ThreadState thread_state = thread_unbound;

}  // namespace pnode::preload

// jemalloc reads it when it starts, which is not before start() has set it.
extern "C" {
extern const char* pn_je_malloc_conf;
constinit const char* pn_je_malloc_conf = nullptr;
}

namespace pnode::preload {
namespace {

enum class Phase : unsigned char { none, starting, started };

// Release by the one who started, acquire by all others: what start() wrote is seen by whoever sees
// `started`.
constinit std::atomic<Phase> phase{Phase::none};
constinit bool managed = false;

// Is there a userfaultfd for it? A shield alone would only cost.
bool can_serve_inline() noexcept {
    os::UffdOpened tried = os::open_userfaultfd(UFFD_FEATURE_SIGBUS, false);
    const bool can = tried.fd >= 0 && tried.has(UFFD_FEATURE_SIGBUS);
    os::close_userfaultfd(tried);
    return can;
}

// The inline engine, the faster one, goes with its shield or not at all. Without being asked for it is taken
// where the shield is complete for this kernel and program.
pn_heap_options options_with_engine() noexcept {
    pn_heap_options options = settings().heap;
    if (options.engine == PN_ENGINE_THREAD) return options;
    const bool asked = options.engine == PN_ENGINE_INLINE;
    options.engine = PN_ENGINE_THREAD;
    if (!asked && (program_uses_rings() || !can_serve_inline())) return options;
    if (shield_prepare() == 0) {
        options.engine = PN_ENGINE_INLINE;
    } else if (asked) {
        say("--engine inline needs Syscall User Dispatch (Linux 5.11): handler threads serve the faults");
    }
    return options;
}

// Was the heap opened?
bool open_heap() noexcept {
    pn_heap* heap = nullptr;
    const pn_heap_options options = options_with_engine();
    const int error = pn_heap_open(&options, &heap);
    if (error != 0) {
        shield_lower();
        say_unmanaged(error);
        return false;
    }
    const bool strict = (settings().heap.flags & PN_HEAP_STRICT) != 0;
    hooks_serve(heap, strict);
    mappings_serve(heap);
    if (settings().captures_mmap) mappings_capture(settings().capture_bytes_min, strict);
    statistics_write_at_exit(heap);
    return true;
}

// The order is the order of the fork handlers (README.md): the runtime's, jemalloc's, ours.
void start() noexcept {
    const InsideRuntime inside;
    settings_read();
    const bool opened = open_heap();
    managed = opened && settings().captures_malloc;
    pn_je_malloc_conf = jemalloc_settings(managed);
    managed = arenas_prepare() && managed;
    if (opened) fork_prepare();
    shield_raise();
}

bool start_once() noexcept {
    Phase seen = phase.load(std::memory_order_acquire);
    if (seen == Phase::started) return true;
    if (environ == nullptr) return false;  // libc itself is not ready
    if (seen == Phase::none &&
        phase.compare_exchange_strong(seen, Phase::starting, std::memory_order_acquire)) {
        start();
        phase.store(Phase::started, std::memory_order_release);
        return true;
    }
    // Only a thread that was made without one allocation can come here; the one that starts needs nothing of
    // it.
    while (phase.load(std::memory_order_acquire) != Phase::started) sched_yield();
    return true;
}

// Before every other constructor of this library, jemalloc's own above all.
[[gnu::constructor(101)]] void start_early() noexcept {
    thread_may_allocate();
}

void activate(std::size_t bytes) noexcept {
    const InsideRuntime inside;
    activate_if_due(heap_served(), bytes);
}

// What a hook found to be due, under jemalloc's locks (hooks.cpp).
void do_what_is_due() noexcept {
    activate(0);
    const InsideRuntime inside;
    change_decay_if_due(heap_served());
}

}  // namespace

void before_large_block(std::size_t bytes) noexcept {
    const int saved_errno = errno;
    if (managed) activate(bytes);
    errno = saved_errno;
}

bool thread_may_allocate() noexcept {
    if (thread_state == thread_ready) return true;
    if (thread_state == thread_inside || os::inside_runtime != 0) return false;
    const int saved_errno = errno;
    if (thread_state == thread_due) {
        do_what_is_due();
        thread_state = thread_ready;
        errno = saved_errno;
        return true;
    }
    const bool ready = start_once();
    if (ready && managed) {
        const InsideRuntime inside;
        arenas_bind_this_thread();
    }
    if (ready) thread_state = thread_ready;
    errno = saved_errno;
    return ready;
}

}  // namespace pnode::preload
