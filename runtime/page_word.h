// The page word: one atomic 64-bit word per page says where the page's bytes are and who may change that.
//
//     bits 0..2   state
//     bit  3      dense: the blob was made by the recompressor; near without a blob: it did not compress
//     bits 4..6   level: how often the page came back soon after it left (DESIGN 5.2)
//     bits 7..11  skip: near: sweeps the page is still passed over; far: skip_max: recompression was in vain
//     bits 12..17 stamp: the eviction epoch in which it left, or did not compress
//     bit  18     block: the blob is one of 16 KiB, dense: of 64 KiB; all of its pages' words name it
//     bit  19     near, far: was written to in its last stay (near and write-protected: the blob it kept may
//                 be outdated); fresh: it was there and held zeros when it left
//     bit  20     pinned (the count is in the heap's pin table)
//     bit  21     write-protected where it is; near: not written to since; limbo: in place
//     bits 22..25 store: which generation's blob store `place` is in, or was (fork.h)
//     bits 26..61 place: far, near and busy: a BlobRef (near: the kept blob, or none); limbo: a staging slot
//     bits 62..63 dictionary: 0, or 1 + the slot of the one that this blob needs (dictionaries.h)
//
// | state    | bytes                             | leaves by                                        |
// |----------|-----------------------------------|--------------------------------------------------|
// | fresh    | nowhere (or untracked, heap.h)    | fault, release, pin: CAS to busy                 |
// | near     | in place                          | evictor, demote, release, pin: CAS to busy       |
// | busy     | its owner knows                   | a plain release-store by the owner               |
// | limbo    | in staging, or in place write-protected | fault, release, its evictor: CAS to busy   |
// | far      | a blob                            | fault, promote, release: CAS to busy             |
// | poisoned | lost                              | release: CAS to busy                             |
//
// One winner: whoever makes a word busy owns the page, and stores the next state with release order, which
// pairs with the acquire load of whoever finds it.
#pragma once

#include <atomic>
#include <cstdint>

#include "cxl/blob_store.h"
#include "runtime/levels.h"
#include "runtime/os/atomic.h"

namespace pnode {

enum class PageState : std::uint8_t { fresh = 0, near = 1, busy = 2, limbo = 3, far = 4, poisoned = 6 };

inline constexpr std::uint64_t page_bytes = 4096;
inline constexpr unsigned stores_max = 16;
inline constexpr unsigned block_pages_max = 16;
inline constexpr unsigned stamps = 64;  // epochs are told apart by so many

class PageWord {
  public:
    constexpr PageWord() = default;
    constexpr explicit PageWord(std::uint64_t bits) : bits_(bits) {}
    constexpr std::uint64_t bits() const { return bits_; }

    constexpr PageState state() const { return static_cast<PageState>(get(0, 3)); }
    constexpr bool dense() const { return get(3, 1) != 0 || is_block(); }
    constexpr bool incompressible() const { return place() == cxl::no_blob && get(3, 1) != 0; }
    constexpr bool is_block() const { return get(18, 1) != 0; }
    // Of its blob.
    constexpr unsigned pages() const { return !is_block() ? 1 : get(3, 1) != 0 ? 16 : 4; }
    constexpr unsigned level() const { return static_cast<unsigned>(get(4, 3)); }
    constexpr unsigned skip() const { return static_cast<unsigned>(get(7, 5)); }
    constexpr unsigned stamp() const { return static_cast<unsigned>(get(12, 6)); }
    constexpr bool pinned() const { return get(20, 1) != 0; }
    constexpr bool in_place() const { return get(21, 1) != 0; }
    constexpr unsigned store() const { return static_cast<unsigned>(get(22, 4)); }
    constexpr std::uint64_t place() const { return get(26, cxl::blob_ref_bits); }
    constexpr unsigned dictionary() const { return static_cast<unsigned>(get(62, 2)); }

    constexpr bool write_protected() const { return get(21, 1) != 0; }
    constexpr bool written() const { return get(19, 1) != 0; }
    // Fresh, but to the application a page that is there, not one that was never touched.
    constexpr bool is_emptied() const { return state() == PageState::fresh && written(); }

    constexpr PageWord with(PageState state) const { return set(0, 3, static_cast<std::uint64_t>(state)); }
    constexpr PageWord with_level(unsigned level) const { return set(4, 3, level); }
    constexpr PageWord with_skip(unsigned skip) const { return set(7, 5, skip); }
    constexpr PageWord with_stamp(unsigned stamp) const { return set(12, 6, stamp % stamps); }
    constexpr PageWord with_pinned(bool pinned) const { return set(20, 1, pinned ? 1 : 0); }
    constexpr PageWord with_in_place(bool in_place) const { return set(21, 1, in_place ? 1 : 0); }
    constexpr PageWord with_blob(unsigned store, std::uint64_t ref, unsigned dictionary = 0) const {
        return set(22, 4, store)
            .set(26, cxl::blob_ref_bits, ref)
            .set(62, 2, dictionary)
            .set(3, 1, 0)
            .set(18, 1, 0);
    }
    // The same blob elsewhere in its store.
    constexpr PageWord with_place(std::uint64_t ref) const { return set(26, cxl::blob_ref_bits, ref); }
    constexpr PageWord with_write_protected(bool is) const { return set(21, 1, is ? 1 : 0); }
    constexpr PageWord with_written(bool written) const { return set(19, 1, written ? 1 : 0); }
    constexpr PageWord with_dense() const { return set(3, 1, 1); }
    constexpr PageWord with_incompressible() const { return without_blob().set(3, 1, 1); }
    // The blob is of so many pages: 4 or 16.
    constexpr PageWord with_block(unsigned pages) const {
        return set(18, 1, 1).set(3, 1, pages == 16 ? 1 : 0);
    }
    // The store stays: near and write-protected, it says whose kernel vouches for the page (unwritten.h).
    constexpr PageWord without_blob() const { return with_blob(store(), cxl::no_blob); }
    constexpr PageWord with_slot(std::uint64_t slot) const { return with_blob(0, slot); }

  private:
    constexpr std::uint64_t get(unsigned shift, unsigned width) const {
        return (bits_ >> shift) & ((std::uint64_t{1} << width) - 1);
    }
    constexpr PageWord set(unsigned shift, unsigned width, std::uint64_t value) const {
        const std::uint64_t mask = ((std::uint64_t{1} << width) - 1) << shift;
        return PageWord((bits_ & ~mask) | ((value << shift) & mask));
    }
    std::uint64_t bits_ = 0;
};
static_assert(26 + cxl::blob_ref_bits <= 62);
static_assert(skip_max < 1u << 5 && level_rule.level_max < 1u << 3);

class AtomicPageWord {
  public:
    PageWord load() const noexcept { return PageWord(bits_.load(std::memory_order_acquire)); }
    // Not before what the thread did to the near map (near_map.h).
    PageWord load_in_order() const noexcept { return PageWord(bits_.load(std::memory_order_seq_cst)); }
    void publish(PageWord word) noexcept { bits_.store(word.bits(), std::memory_order_release); }
    // One winner: `expected` to `desired`, acquire so that the winner sees what the last owner left.
    // Sequentially consistent for near_map.h.
    bool exchange(PageWord expected, PageWord desired) noexcept {
        std::uint64_t bits = expected.bits();
        return bits_.compare_exchange_strong(bits, desired.bits(), std::memory_order_seq_cst,
                                             std::memory_order_relaxed);
    }
    bool make_busy(PageWord expected) noexcept { return exchange(expected, expected.with(PageState::busy)); }

  private:
    os::Atomic<std::uint64_t> bits_{0};
};
static_assert(sizeof(AtomicPageWord) == 8);

}  // namespace pnode
