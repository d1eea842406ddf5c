#include "preload/arenas.h"

#include <sched.h>

#include <atomic>

#include "preload/hooks.h"
#include "preload/jemalloc.h"

namespace pnode::preload {
namespace {

// arena_config_t of jemalloc 5.3, which its public header leaves out.
struct ArenaConfig {
    extent_hooks_t* hooks;
    bool metadata_use_hooks;  // false: its own structures stay out of the heap
};

constexpr unsigned arenas_max = 64;
constexpr unsigned no_arena = 0;  // index 0 is jemalloc's automatic arena, never one of ours

// Relaxed: the index is all there is to see; mallctl has its own locks.
constinit std::atomic<unsigned> arena_of_slot[arenas_max] = {};
constinit std::atomic<unsigned> threads_bound{0};
constinit unsigned slots = 1;
constinit std::size_t thread_arena_mib[2] = {};

// As many as CPUs: a thread more on an arena costs less than the 2 MiB that an arena holds ready.
unsigned slots_for_this_machine() noexcept {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
        return 1;  // more CPUs than the set holds, or none of our business
    const int count = CPU_COUNT(&cpus);
    return count < 1 ? 1 : count > static_cast<int>(arenas_max) ? arenas_max : static_cast<unsigned>(count);
}

// Grows by the same step for ever: every page beyond it would count as one that may be touched unseen.
void limit_growth(unsigned arena) noexcept {
    std::size_t mib[3];
    std::size_t length = 3;
    if (pn_je_mallctlnametomib("arena.0.retain_grow_limit", mib, &length) != 0) return;
    mib[1] = arena;
    std::size_t step = arena_growth_bytes;
    pn_je_mallctlbymib(mib, length, nullptr, nullptr, &step, sizeof(step));
}

unsigned make_arena() noexcept {
    ArenaConfig config{&heap_hooks, false};
    unsigned arena = no_arena;
    std::size_t bytes = sizeof(arena);
    const int error =
        pn_je_mallctl("experimental.arenas_create_ext", &arena, &bytes, &config, sizeof(config));
    if (error != 0) return no_arena;
    limit_growth(arena);
    return arena;
}

}  // namespace

// Muzzy pages would be ones that are given back lazily: ours are dropped or not. One second of decay keeps
// what a program frees and takes again, and is shorter than it takes a page to grow cold. An arena for
// oversized allocations would have plain memory.
const char* jemalloc_settings(bool managed) noexcept {
    return managed ? "narenas:1,retain:true,oversize_threshold:0,dirty_decay_ms:1000,muzzy_decay_ms:0,"
                     "background_thread:false,percpu_arena:disabled,abort_conf:false"
                   : "abort_conf:false";
}

bool arenas_prepare() noexcept {
    slots = slots_for_this_machine();
    std::size_t length = 2;
    return pn_je_mallctlnametomib("thread.arena", thread_arena_mib, &length) == 0;
}

void arenas_bind_this_thread() noexcept {
    auto& slot = arena_of_slot[threads_bound.fetch_add(1, std::memory_order_relaxed) % slots];
    unsigned arena = slot.load(std::memory_order_relaxed);
    if (arena == no_arena) {
        arena = make_arena();
        if (arena == no_arena) return;
        // Should another thread have been first, this arena stays this thread's alone.
        unsigned none = no_arena;
        slot.compare_exchange_strong(none, arena, std::memory_order_relaxed);
    }
    pn_je_mallctlbymib(thread_arena_mib, 2, nullptr, nullptr, &arena, sizeof(arena));
}

}  // namespace pnode::preload
