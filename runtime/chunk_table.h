// Chunks: the grain at which a heap's address space is watched.
//
// Fresh memory must not pay. A chunk starts *untracked*: it is not registered with userfaultfd, the kernel
// zero-fills it at its own speed, the page words say fresh, and every allocated page in it is charged as
// near. When the evictor needs room it *tracks* a chunk: registers it, asks the kernel which pages are there,
// and from then on every page's word tells the truth. A chunk stays tracked.
//
// Thread rule: state(), settled_state() and all_are_tracked() by anybody; the rest under the heap's span
// lock.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/os/atomic.h"
#include "runtime/os/memory.h"
#include "runtime/os/wait.h"

namespace pnode {

enum class ChunkState : std::uint8_t { untracked = 0, tracking = 1, tracked = 2 };

class ChunkTable {
  public:
    int init(std::uint64_t chunks) noexcept {
        if (int error = memory_.map((chunks * sizeof(Chunk) + 4095) & ~std::uint64_t{4095})) return error;
        chunks_ = reinterpret_cast<Chunk*>(memory_.address());
        return 0;
    }
    ChunkState state(std::uint64_t chunk) const noexcept {
        return chunks_[chunk].state.load(std::memory_order_acquire);
    }
    // Untracked or tracked: waits for whoever tracks it just now. One look decides: after a second one it
    // might be on its way.
    ChunkState settled_state(std::uint64_t chunk) const noexcept {
        for (os::Backoff backoff;; backoff.wait()) {
            if (const ChunkState seen = state(chunk); seen != ChunkState::tracking) return seen;
        }
    }
    void set_state(std::uint64_t chunk, ChunkState state) noexcept {
        const ChunkState before = chunks_[chunk].state.exchange(state, std::memory_order_acq_rel);
        if (allocated_pages(chunk) != 0) count(before != ChunkState::tracked, state != ChunkState::tracked);
    }
    bool claim(std::uint64_t chunk) noexcept {
        ChunkState expected = ChunkState::untracked;
        return chunks_[chunk].state.compare_exchange_strong(expected, ChunkState::tracking,
                                                            std::memory_order_acq_rel);
    }
    std::uint32_t allocated_pages(std::uint64_t chunk) const noexcept {
        return chunks_[chunk].allocated_pages.load(std::memory_order_relaxed);
    }
    void add_allocated(std::uint64_t chunk, std::int64_t pages) noexcept {
        const std::uint32_t before = chunks_[chunk].allocated_pages.fetch_add(
            static_cast<std::uint32_t>(pages), std::memory_order_relaxed);
        if (state(chunk) != ChunkState::tracked)
            count(before != 0, before + static_cast<std::uint32_t>(pages) != 0);
    }
    // All that have pages. Then what is near is on the near map.
    bool all_are_tracked() const noexcept { return untracked_.load(std::memory_order_relaxed) == 0; }

    // visit(first chunk, chunks) for each run of tracked chunks below `end`.
    template <class Visit>
    void for_each_tracked_run(std::uint64_t end, Visit visit) const {
        for (std::uint64_t chunk = 0; chunk < end; ++chunk) {
            const std::uint64_t first = chunk;
            while (chunk < end && state(chunk) == ChunkState::tracked) ++chunk;
            if (chunk != first) visit(first, chunk - first);
        }
    }

  private:
    struct Chunk {
        os::Atomic<ChunkState> state;
        std::atomic<std::uint32_t> allocated_pages;
    };
    void count(bool was_untracked, bool is_untracked) noexcept {
        if (was_untracked == is_untracked) return;
        untracked_.fetch_add(is_untracked ? 1 : std::uint64_t{0} - 1, std::memory_order_relaxed);
    }

    Chunk* chunks_ = nullptr;
    std::atomic<std::uint64_t> untracked_{0};  // with pages
    os::Mapping memory_;
};

}  // namespace pnode
