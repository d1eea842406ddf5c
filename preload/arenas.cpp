#include "preload/arenas.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>

#include "preload/hooks.h"
#include "preload/jemalloc.h"
#include "runtime/process.h"

namespace pnode::preload {
namespace {

// arena_config_t of jemalloc 5.3, which its public header leaves out.
struct ArenaConfig {
    extent_hooks_t* hooks;
    bool metadata_use_hooks;  // false: its own structures stay out of the heap
};

constexpr unsigned arenas_max = 64;
constexpr unsigned no_arena = 0;  // index 0 is jemalloc's automatic arena, never one of ours

// The index is all there is to see; mallctl has its own locks.
constinit std::atomic<unsigned> arena_of_slot[arenas_max] = {};
// Relaxed: who counts wrong for a moment chooses the second best.
constinit std::atomic<unsigned> threads_of_slot[arenas_max] = {};
constinit unsigned slots = 1;
constinit std::size_t thread_arena_mib[2] = {};

// As jemalloc takes it, in milliseconds.
using Decay = ssize_t;
constexpr Decay decay_when_slack = 10'000;  // jemalloc's own
constexpr Decay decay_when_scarce = 1'000;
constinit bool decay_follows = false;  // written before there are threads of the heap's
// Sequentially consistent with arena_of_slot: who makes an arena finds what another has put in force here, or
// that one finds the arena.
constinit std::atomic<Decay> decay_in_force{decay_when_slack};

// As many as CPUs: a thread more on an arena costs less than the 2 MiB that an arena holds ready.
unsigned slots_for_this_machine() noexcept {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
        return 1;  // more CPUs than the set holds, or none of our business
    const int count = CPU_COUNT(&cpus);
    return count < 1 ? 1 : count > static_cast<int>(arenas_max) ? arenas_max : static_cast<unsigned>(count);
}

unsigned slot_with_fewest_threads() noexcept {
    unsigned best = 0;
    for (unsigned slot = 1; slot < slots; ++slot) {
        if (threads_of_slot[slot].load(std::memory_order_relaxed) <
            threads_of_slot[best].load(std::memory_order_relaxed))
            best = slot;
    }
    return best;
}

// A thread's value is its slot's count, so that it is null for those that have none.
constinit pthread_key_t end_of_thread = 0;
constinit bool ends_are_seen = false;

void leave_slot(void* count) noexcept {
    static_cast<std::atomic<unsigned>*>(count)->fetch_sub(1, std::memory_order_relaxed);
}

// libc keeps the values of the first keys in the thread itself, and allocates for others. With one of those
// the ends of threads go unseen, and the slots are taken in turns.
void see_ends_of_threads() noexcept {
    constexpr pthread_key_t keys_in_thread = 32;
    if (pthread_key_create(&end_of_thread, leave_slot) != 0) return;
    ends_are_seen = end_of_thread < keys_in_thread;
    if (!ends_are_seen) pthread_key_delete(end_of_thread);
}

unsigned take_slot() noexcept {
    const unsigned slot = slot_with_fewest_threads();
    threads_of_slot[slot].fetch_add(1, std::memory_order_relaxed);
    if (ends_are_seen) pthread_setspecific(end_of_thread, &threads_of_slot[slot]);
    return slot;
}

// `name` is arena 0's.
template <typename Value>
void set_of_arena(unsigned arena, const char* name, Value value) noexcept {
    std::size_t mib[3];
    std::size_t length = 3;
    if (pn_je_mallctlnametomib(name, mib, &length) != 0) return;
    mib[1] = arena;
    pn_je_mallctlbymib(mib, length, nullptr, nullptr, &value, sizeof(value));
}

// Grows by the same step for ever: every page beyond it would count as one that may be touched unseen.
void limit_growth(unsigned arena) noexcept {
    set_of_arena<std::size_t>(arena, "arena.0.retain_grow_limit", arena_growth_bytes);
}

Decay decay_that_follows(pn_heap* heap, Decay was) noexcept {
    return is_near_scarce(heap, was == decay_when_scarce) ? decay_when_scarce : decay_when_slack;
}

// Another thread may put another one in force meanwhile: whoever is the last to look sees the last.
void bring_in_force(unsigned first_slot, unsigned past_slot) noexcept {
    Decay decay = 0;
    do {
        decay = decay_in_force.load();
        for (unsigned slot = first_slot; slot < past_slot; ++slot) {
            if (const unsigned arena = arena_of_slot[slot].load(); arena != no_arena)
                set_of_arena(arena, "arena.0.dirty_decay_ms", decay);
        }
    } while (decay_in_force.load() != decay);
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

// Muzzy pages would be ones that are given back lazily: ours are dropped or not. An arena for oversized
// allocations would have plain memory.
const char* jemalloc_settings(bool managed) noexcept {
    return managed ? "narenas:1,retain:true,oversize_threshold:0,dirty_decay_ms:1000,muzzy_decay_ms:0,"
                     "background_thread:false,percpu_arena:disabled,abort_conf:false"
                   : "abort_conf:false";
}

bool arenas_prepare() noexcept {
    slots = slots_for_this_machine();
    see_ends_of_threads();
    std::size_t length = 2;
    if (pn_je_mallctlnametomib("thread.arena", thread_arena_mib, &length) != 0) return false;
    Decay decay = 0;
    std::size_t bytes = sizeof(decay);
    decay_follows =
        pn_je_mallctl("arenas.dirty_decay_ms", &decay, &bytes, nullptr, 0) == 0 && decay == decay_when_scarce;
    return true;
}

void arenas_bind_this_thread() noexcept {
    const unsigned slot = take_slot();
    unsigned arena = arena_of_slot[slot].load();
    if (arena == no_arena) {
        arena = make_arena();
        if (arena == no_arena) return;
        // Should another thread have been first, this arena stays this thread's alone, as it was made.
        unsigned none = no_arena;
        if (arena_of_slot[slot].compare_exchange_strong(none, arena) && decay_follows)
            bring_in_force(slot, slot + 1);
    }
    pn_je_mallctlbymib(thread_arena_mib, 2, nullptr, nullptr, &arena, sizeof(arena));
}

void arenas_after_fork_in_child() noexcept {
    if (!ends_are_seen) return;
    for (auto& count : threads_of_slot) count.store(0, std::memory_order_relaxed);
    if (void* const own = pthread_getspecific(end_of_thread))
        static_cast<std::atomic<unsigned>*>(own)->store(1, std::memory_order_relaxed);
}

bool is_change_of_decay_due(pn_heap* heap) noexcept {
    const Decay decay = decay_in_force.load(std::memory_order_relaxed);
    return decay_follows && decay_that_follows(heap, decay) != decay;
}

void change_decay_if_due(pn_heap* heap) noexcept {
    if (!decay_follows) return;
    Decay was = decay_in_force.load();
    const Decay decay = decay_that_follows(heap, was);
    if (decay != was && decay_in_force.compare_exchange_strong(was, decay)) bring_in_force(0, slots);
}

}  // namespace pnode::preload
