// A heap: managed address space with a near limit, a node and a codec. This file has the parts; the files
// beside it have the verbs:
//
//     tracking   the kernel's pages to page words         resolve   bring one page near
//     promote    bring a run of far pages near            evict     take pages out
//     mapping    protect, reserve, take back              release   drop contents
//     hand_out   let somebody else have pages
//     pin        promise that a page stays                relocate  contents to other addresses
//     fork       a child reads its snapshot               fault_threads, inline_engine   who calls resolve
//     heap       open, allocate, activate
//
// Lock order: activation, operations gate, serving gate, evict hand, chunk tracking, span lock, blob store.
// Waiting for a busy page comes last of all: an owner of a busy page waits for nobody's page but in ascending
// order (release).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "cxl/spin_lock.h"
#include "pnode/pnode.h"
#include "runtime/buffer_codecs.h"
#include "runtime/change_engine.h"
#include "runtime/chunk_table.h"
#include "runtime/eviction_clock.h"
#include "runtime/far_tier.h"
#include "runtime/fault_threads.h"
#include "runtime/gate.h"
#include "runtime/hand.h"
#include "runtime/kept_outcomes.h"
#include "runtime/lanes.h"
#include "runtime/leased_pages.h"
#include "runtime/leases.h"
#include "runtime/near_ledger.h"
#include "runtime/near_map.h"
#include "runtime/nominations.h"
#include "runtime/offload.h"
#include "runtime/os/userfaultfd.h"
#include "runtime/packing.h"
#include "runtime/page_traits.h"
#include "runtime/page_word.h"
#include "runtime/read_ahead.h"
#include "runtime/recompressor.h"
#include "runtime/span_allocator.h"
#include "runtime/statistics.h"
#include "runtime/stats_file.h"

namespace pnode {

enum class Engine : std::uint8_t { none, thread, in_line };

class Heap : private cxl::NodeUser {
  public:
    struct Config {
        std::uint64_t address_bytes = 0;
        std::uint64_t near_bytes_max = 0;   // 0: none
        std::uint64_t total_bytes_max = 0;  // of near and far together; 0: none
        std::uint64_t activation_bytes = 0;
        FarTier::Config far;
        std::uint32_t engine = PN_ENGINE_AUTO;
        bool strict = false;
        bool stress = false;
        bool verbose = false;
        bool pins_io = false;  // PN_HEAP_PINNED_IO: spans may be write-protected (protect_spans.cpp)
    };

    Heap() = default;
    ~Heap();
    Heap(const Heap&) = delete;
    Heap& operator=(const Heap&) = delete;

    int open(Config config, std::string* message);

    // ---- buffers (heap.cpp) ----
    struct Placing {
        std::uint64_t alignment = 0;
        const void* at = nullptr;  // these very addresses; EEXIST when they are not all free
        bool reserved = false;     // inaccessible and not charged before protect() says otherwise
        bool activates = true;     // false: the caller holds locks, and looks after activate_if_due() later
    };
    int allocate(std::uint64_t bytes, const Placing& placing, void** out);
    int free(std::uint64_t first, std::uint64_t pages);
    // The pages of [address, address + bytes), which must lie in buffers; EINVAL otherwise.
    int pages_of(const void* address, std::uint64_t bytes, std::uint64_t* first,
                 std::uint64_t* pages) const noexcept;

    // ---- as the kernel sees buffers (mapping.cpp) ----
    // An errno of mprotect(2); ENOMEM also where strict forbids what becomes accessible.
    int protect(std::uint64_t first, std::uint64_t pages, int protection);
    // EBUSY: a page is pinned · EIO: one is lost · ENOMEM: vm.max_map_count; pages may be handed out by then.
    enum class Contents : std::uint8_t { dropped, left };
    int hand_out(std::uint64_t first, std::uint64_t pages, Contents contents) noexcept;
    int take_back(std::uint64_t first, std::uint64_t pages) noexcept;

    // Threads, userfaultfd and node, once; idempotent. 0 or an errno. More handlers than `handlers_now` start
    // when there are faults to serve.
    int activate(std::string* message, unsigned handlers_now = FaultThreads::threads_max);
    // `pages_more` would pass the activation size; it starts threads, for which libc takes locks of its
    // loader's. Waits for nobody: a thread that comes while another activates goes on, and the evictor finds
    // what it got.
    void activate_if_due(std::uint64_t pages_more);
    bool is_activation_due(std::uint64_t pages_more) const noexcept {
        return !is_active() && !activation_failed.load() &&
               (near.pages() + pages_more) * page_bytes > config.activation_bytes;
    }
    bool is_active() const noexcept { return active.load(std::memory_order_acquire); }

    std::byte* address_of(std::uint64_t page) const noexcept { return base + page * page_bytes; }
    bool contains(std::uint64_t address) const noexcept {
        return address - reinterpret_cast<std::uint64_t>(base) < page_count * page_bytes;
    }
    std::uint64_t page_at(std::uint64_t address) const noexcept {
        return (address - reinterpret_cast<std::uint64_t>(base)) / page_bytes;
    }
    std::uint64_t chunk_of(std::uint64_t page) const noexcept { return page / chunk_pages; }
    // The page after its last.
    std::uint64_t end_of_chunk(std::uint64_t chunk) const noexcept {
        return std::min((chunk + 1) * chunk_pages, page_count);
    }
    // The page's own codec; nullptr: the heap's.
    const BufferCodecs::Entry* codec_of(std::uint64_t page) const noexcept {
        return traits.any() ? buffer_codecs.find(PageTraits::codec_of(traits[page])) : nullptr;
    }
    AtomicPageWord& word(std::uint64_t page) const noexcept { return words[page]; }
    // A thread that serves its own faults makes room itself (make_room): to have another thread do it would
    // cost the interrupts by which two processors flush each other's TLB, more than what is done. But a
    // device is the evictor's to wait for.
    bool makes_room_itself() const noexcept { return engine == Engine::in_line && !offload.is_open(); }
    // For stamps in page words, and ages.
    unsigned epoch() const noexcept { return eviction_clock.epoch(); }
    // So that nothing that left before counts as having left lately: none of it left this process.
    void end_epochs() noexcept {
        constexpr unsigned late = 17;
        static_assert(late >= level_rule.sink_age_min);
        eviction_clock.advance(late);
    }
    // What pages are registered for.
    std::uint64_t uffd_mode() const noexcept {
        return UFFDIO_REGISTER_MODE_MISSING |
               (uffd.has(UFFD_FEATURE_PAGEFAULT_FLAG_WP) ? UFFDIO_REGISTER_MODE_WP : 0);
    }

    // Staging: slot s is page s of the staging area, out[s % batch_pages] of lane s / batch_pages.
    OutgoingPage& slot(std::uint64_t index) noexcept {
        return evict_lanes[static_cast<unsigned>(index / batch_pages)].out[index % batch_pages];
    }
    int map_staging() noexcept;
    std::byte* staging_address() noexcept { return evict_lanes[0].staging; }
    // Without the doorbell, the page behind it.
    static constexpr std::uint64_t staging_bytes() {
        return std::uint64_t{EvictLanes::count} * batch_pages * page_bytes;
    }
    // Pages left the node. Now and then that ends a rest, and has the evictor give emptied slabs back.
    void far_room_made(std::uint64_t pages) noexcept;

    // ---- parts; each documents its own thread rule ----
    Config config;
    os::UffdOpened uffd;
    int page_map = -1;  // os::find_occupied(); -1 in a forked child that goes on
    std::atomic<Engine> engine{Engine::none};
    std::atomic<bool> moves_pages{false};  // of `uffd`, which changes with the engine: to be read at any time
    EngineChange engine_change;
    std::byte* base = nullptr;
    std::uint64_t page_count = 0;
    std::uint64_t chunk_pages = 0;
    AtomicPageWord* words = nullptr;
    std::atomic<std::uint8_t>* pins =
        nullptr;  // touched for pinned pages alone; changed by the owner of the busy page
    SpanAllocator spans;
    PageTraits traits;
    BufferCodecs buffer_codecs;
    ChunkTable chunks;
    NearMap near_map;
    cxl::SpinLock activation_lock;
    cxl::SpinLock span_lock;
    NearLedger near;
    FarTier far;
    Offload offload;
    Leases leases;
    ResolveLanes resolve_lanes;
    EvictLanes evict_lanes;
    OperationsGate operations;  // API calls and the evictor
    OperationsGate serving;     // fault handlers
    KeptOutcomes kept_outcomes;
    Statistics statistics;
    FaultThreads fault_threads;

    // The evictor's hand: which page it looks at next. Whoever has hand_taken moves it.
    os::Atomic<bool> hand_taken{false};
    Hand hand;
    LeasedPages leased_pages;     // which go before the hand is moved
    unsigned looked_again = 0;    // the epoch (near_map.h)
    std::uint64_t keep_hand = 0;  // the same, of the search for kept blobs to drop
    EvictionClock eviction_clock;
    std::atomic<std::uint64_t> tracked_chunks{0};
    std::atomic<std::uint64_t> far_left{0};  // pages, since the evictor was last told (release)
    Nominations nominations;
    TokenBucket prefetch_budget;

    os::Thread evictor;
    Recompressor recompressor;
    Packing packing;
    ReadAhead read_ahead;
    std::atomic<bool> stop{false};
    StatsFile stats_file;

  private:
    int reserve(std::string* message);
    int map_lanes(std::string* message);
    void charge_spans(std::uint64_t first, std::uint64_t pages, std::int64_t sign) noexcept;
    void charge_new(std::uint64_t first, std::uint64_t pages) noexcept;
    void charge_reserved(std::uint64_t first, std::uint64_t pages) noexcept;
    int map_again(std::uint64_t first, std::uint64_t pages) noexcept;
    int mark_handed_out(std::uint64_t first, std::uint64_t pages) noexcept;
    int hand_out_tracked(std::uint64_t first, std::uint64_t pages, ResolveLane& lane) noexcept;
    int take_pages(std::uint64_t pages, const Placing& placing, std::uint64_t* first) noexcept;
    int open_up_to(std::uint64_t end) noexcept;
    int make_ordinary(std::uint64_t first, std::uint64_t pages, bool reserved) noexcept;
    int activate_locked(std::string* message, unsigned handlers_now);
    bool has_room_for(std::uint64_t pages) noexcept;
    void set_limits() noexcept;
    int open_userfaultfd(std::string* message);
    void open_offload();
    void say_active() const;
    void node_changed() noexcept override;

    std::uint64_t opened_pages_ = 0;  // of the address space, from its start; with the span lock
    std::atomic<bool> active{false};
    std::atomic<bool> activation_failed{false};
    os::Mapping address_space_;
    os::Mapping words_memory_;
    os::Mapping pins_memory_;
    os::Mapping lanes_memory_;
    os::Mapping staging_;
    friend int evacuate_node(cxl::Node&, std::string*);
    friend void fork_child(Heap&) noexcept;
};

// ---- verbs, each in the file of its name ----

// Tracks the chunk if it is not; false when the kernel refused (then nothing in it can be demoted). Heap
// active.
bool track_chunk(Heap& heap, std::uint64_t chunk) noexcept;
// Registers what of the pages is not handed out. 0 or an errno.
int watch_pages(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;
// None of them is handed out, or all are about to be. 0 or an errno, and then they are watched as before.
int unwatch_pages(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;
// How often pages were handed out in this process: a fault that was raised before may be handled afterwards
// (inline_engine.cpp).
std::uint64_t hand_outs() noexcept;
// Fresh pages that the kernel has in place become near; how many, for the ledger.
std::uint64_t adopt_present_pages(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;

// While it lives nobody tracks a chunk of the pages that was not tracked before. Waits for who does just now.
class ChunksClaimed {
  public:
    ChunksClaimed(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;
    ~ChunksClaimed();
    ChunksClaimed(const ChunksClaimed&) = delete;
    ChunksClaimed& operator=(const ChunksClaimed&) = delete;
    bool any_tracked() const noexcept { return tracked_ != 0; }

  private:
    Heap& heap_;
    std::uint64_t first_chunk_;
    std::uint64_t end_chunk_;
    std::uint64_t tracked_ = 0;
};

// asked: nobody faulted, the page is only wanted near. missing_to_read: the access writes nothing, so the
// page may be put in place write-protected. missing: to read, as far as is known, and not to be.
enum class FaultKind : std::uint8_t {
    asked,
    missing,
    missing_to_read,
    missing_to_write,
    write_protected,
    unknown
};
enum class Resolved : std::uint8_t { served, fresh, redundant, poisoned, gone };
// Brings one page near and wakes who waits for it. Never fails silently. If it is far, the next ones come
// with it, up to `pages` in all, as far as that costs no waiting; nothing is said of them.
Resolved resolve(Heap& heap, std::uint64_t page, FaultKind kind, ResolveLane& lane,
                 unsigned pages = 1) noexcept;
// What was put in place write-protected may be written to, by the kernel too: without a fault of the
// program's that would be EFAULT.
void make_writable(Heap& heap, std::uint64_t page) noexcept;
// Of a near page, by its owner: what its word is then.
PageWord unprotected(Heap& heap, std::uint64_t page, PageWord word) noexcept;
// Promote, for a range; EIO: a page is poisoned.
int promote(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;

// A fault handler never waits for another evicting thread.
enum class Evicting : std::uint8_t { handler, other };
// Takes out up to a batch of the coldest pages; how many left DRAM. 0: nothing could be.
unsigned evict_batch(Heap& heap, EvictLane& lane, Evicting who) noexcept;
// Makes room if the ledger is past `hard`: what everybody does who brought pages near.
void make_room(Heap& heap, Evicting who) noexcept;
// Demotes what can be of a range; pages that are far or fresh afterwards. ENOSPC: the node is full or gated.
int demote(Heap& heap, std::uint64_t first, std::uint64_t pages, std::uint64_t* done) noexcept;
void* evictor_main(void* heap) noexcept;

// With a limit of near and far together: near pages have what far ones leave of it. After far ones came or
// went; any thread.
void share_total(Heap& heap) noexcept;
// Gives free slabs back to the node, and shares anew.
void trim(Heap& heap) noexcept;
// Frees the blob that a near page kept, if any; the caller owns the page.
void drop_kept(Heap& heap, PageWord word) noexcept;
// What an owned page's state held besides its bytes in place, of all states; how many pages come off the
// ledger. Adds to `far` if it was far.
std::uint64_t drop_contents(Heap& heap, PageWord word, std::uint64_t* far) noexcept;
// A bounded piece of the search for kept blobs to drop.
void drop_kept_blobs(Heap& heap) noexcept;

// The node holds more than its device can: pages come near while the near limit allows it. The evictor's.
// True: it still does.
bool converge(Heap& heap) noexcept;
// Brings near what was nominated, within its budget. The evictor's. True: something is left for later.
bool serve_nominations(Heap& heap) noexcept;
// Takes every heap off the node, or none. 0, or EBUSY with one line in `why`; ENOMEM.
int evacuate_node(cxl::Node& node, std::string* why);

void release(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;

// Contents and states of [from, from + pages) to [to, to + pages), which is released, ordinary and disjoint;
// `from` is ordinary and fresh afterwards. Nothing is decoded. 0 or an errno.
int relocate(Heap& heap, std::uint64_t from, std::uint64_t to, std::uint64_t pages) noexcept;
// Takes the page whatever its state; what it was. Several pages are owned in ascending order.
PageWord own(Heap& heap, std::uint64_t page) noexcept;

int pin(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;
int unpin(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;
bool any_pinned(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept;

// fork
void register_heap(Heap& heap) noexcept;
void forget_heap(Heap& heap) noexcept;
Heap* heap_at(std::uint64_t address) noexcept;  // any context
// Has the calling thread shut the gates? Then it may come near what it needs, but must not touch the blob
// store.
bool is_forking_here() noexcept;
// Is this the child of a fork, before the runtime's handler there has run? The descriptor it has inherited
// fills its parent's memory.
bool is_child_to_be() noexcept;

// inline engine
int install_inline_engine() noexcept;

// Serving a fault in a thread of the program's. The thread that forks has shut the gate itself, and is
// served.
class Serving {
  public:
    explicit Serving(Heap& heap) noexcept : gate_(is_forking_here() ? nullptr : &heap.serving) {
        if (gate_ != nullptr) gate_->enter();
    }
    ~Serving() {
        if (gate_ != nullptr) gate_->leave();
    }
    Serving(const Serving&) = delete;
    Serving& operator=(const Serving&) = delete;

  private:
    OperationsGate* gate_;
};

// nullptr when sound, else what is wrong. Stops the heap meanwhile; for tests.
const char* validate(Heap& heap) noexcept;

// Nobody forks, and no heap is opened or closed, in between. Signals blocked.
void lock_heaps() noexcept;
void unlock_heaps() noexcept;

// What cannot be returned to anybody: one line on standard error.
void report(const char* format, ...) noexcept __attribute__((format(printf, 1, 2)));

}  // namespace pnode
