// Lanes: what a thread needs to serve a fault or to take pages out, lent from fixed pools so that neither
// path allocates.
//
// Thread rule: any thread; a lane is one thread's while it holds it. Every holder has all signals blocked or
// is a runtime thread, so that a holder always goes on.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "compress/blob.h"
#include "cxl/blob_store.h"
#include "runtime/far_tier.h"
#include "runtime/os/memory.h"
#include "runtime/os/wait.h"
#include "runtime/page_word.h"
#include "runtime/streams.h"

namespace pnode {

inline constexpr unsigned batch_pages =
    16;  // FACTS.md: UFFDIO_MOVE costs 1.3 us alone and 0.28 us a page in runs of 16

// For bringing a page near, or a run of them: a buffer they are decoded into.
struct alignas(64) ResolveLane {
    static constexpr unsigned pages_max = Streams::run_max;
    std::atomic<bool> taken{false};
    std::byte* pages = nullptr;  // pages_max of them
    FarTier::Room room;
    Streams streams;  // of the faults that threads served themselves with it
};

// A page on its way out. `kept_*` is the blob it kept from its last visit to the node, if any.
struct OutgoingPage {
    std::uint64_t page = 0;
    PageWord word;  // as it was near: level, kept blob
    std::byte* contents = nullptr;
    bool in_place = false;
    bool protected_late = false;  // when it was to leave (protect_spans.cpp)
    bool encoded = false;         // ahead of its turn, with others; then these two hold
    compress::ContentHash hash{};
    std::span<const std::byte> blob{};  // empty: it does not save enough
};

// A near page that was not written to since its blob was made, on its way out (unwritten.h). Nobody's: `word`
// is what it has to be when it is dropped.
struct UnwrittenPage {
    std::uint64_t page = 0;
    PageWord word;
    bool is_new = false;  // the blob was made just now, to let it leave
    bool protected_late = false;
    bool was_written = false;  // in this stay
};

// Between two pages that leave: owned while the kernel write-protects a span (protect_spans.cpp).
struct BetweenPage {
    std::uint64_t page = 0;
    PageWord word;
};

// For taking pages out: staging for a batch, and room to compress its pages.
struct alignas(64) EvictLane {
    static constexpr std::size_t blob_bytes_max = 2 * page_bytes;  // a page as it is, and a header
    std::atomic<bool> taken{false};
    std::byte* staging = nullptr;  // batch_pages pages, registered, not inherited by children
    unsigned first_slot = 0;       // of the whole staging area's slots
    std::byte* blob = nullptr;     // batch_pages times blob_bytes_max
    std::span<std::byte> scratch;
    OutgoingPage out[batch_pages];
    unsigned out_count = 0;
    std::byte* copies = nullptr;  // batch_pages of them: of what is compressed while it can be read
    // What is dropped where it is: so many that are found, and those of `out` that become such.
    static constexpr unsigned unwritten_max = 64;
    UnwrittenPage unwritten[unwritten_max + batch_pages];
    iovec ranges[unwritten_max + batch_pages];
    unsigned unwritten_count = 0;
    static constexpr unsigned between_max = 256;
    BetweenPage between[between_max];

    // Turns of the hand that found nothing and need not be made again: one, or as many as it takes for what
    // is passed over, where there was nothing even to pass over.
    unsigned turns = 1;

    bool is_empty() const noexcept { return out_count + unwritten_count == 0; }
};

// Where a thread looks first, each somewhere else: what a lane's buffers hold is in the cache of the
// processor where its last holder ran, and to fetch 4 KiB from another's costs as much as to decode them.
inline unsigned lane_home() noexcept {
    static constinit std::atomic<unsigned> threads{0};
    static constinit thread_local unsigned home __attribute__((tls_model("initial-exec"))) = 0;
    if (home == 0) home = 1 + threads.fetch_add(1, std::memory_order_relaxed);
    return home;
}

template <class Lane, unsigned lane_count>
class LanePool {
  public:
    static constexpr unsigned count = lane_count;
    Lane& operator[](unsigned index) noexcept { return lanes_[index]; }

    // Null when all are taken.
    Lane* try_take() noexcept {
        const unsigned home = lane_home();
        for (unsigned tried = 0; tried < count; ++tried) {
            Lane& lane = lanes_[(home + tried) % count];
            if (!lane.taken.load(std::memory_order_relaxed) &&
                !lane.taken.exchange(true, std::memory_order_acquire))
                return &lane;
        }
        return nullptr;
    }
    Lane& take() noexcept {
        os::Backoff backoff;
        for (;;) {
            if (Lane* lane = try_take()) return *lane;
            backoff.wait();
        }
    }
    static void give_back(Lane& lane) noexcept { lane.taken.store(false, std::memory_order_release); }

  private:
    Lane lanes_[lane_count];
};

template <class Pool, class Lane>
class Lent {
  public:
    Lent(Pool& pool) noexcept : lane_(&pool.take()) {}
    explicit Lent(Lane* lane) noexcept : lane_(lane) {}
    ~Lent() {
        if (lane_ != nullptr) Pool::give_back(*lane_);
    }
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;
    Lane& operator*() const noexcept { return *lane_; }
    Lane* operator->() const noexcept { return lane_; }
    Lane* get() const noexcept { return lane_; }

  private:
    Lane* lane_;
};

using ResolveLanes = LanePool<ResolveLane, 32>;
using EvictLanes = LanePool<EvictLane, 8>;
using LentResolveLane = Lent<ResolveLanes, ResolveLane>;
using LentEvictLane = Lent<EvictLanes, EvictLane>;

}  // namespace pnode
