// Address space of a heap, in pages: which ranges are buffers, and where the next one goes.
//
// Free runs are in doubly linked lists by size (four lists a power of two); a side table indexed by page
// holds a run's length at both of its ends, so that a freed range joins its neighbours in constant time. All
// tables are lazily backed: a sparse heap costs what it uses.
//
// Thread rule: none of its own; the heap's span lock protects everything but is_allocated(), which reads
// atomics and may be called by anybody (a caller that races with the freeing of the very range it asks about
// gets either answer).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "runtime/os/memory.h"

namespace pnode {

class SpanAllocator {
  public:
    // 0 or an errno; `pages` below 2^32. `base_page`: the number of page 0 in the process's address space,
    // from which alignment counts.
    int init(std::uint64_t pages, std::uint64_t base_page) noexcept;

    // First page of a range of `pages` whose address is a multiple of `alignment_pages` (a power of two);
    // false: no such range.
    bool allocate(std::uint64_t pages, std::uint64_t alignment_pages, std::uint64_t* first) noexcept;
    // These very pages; false: not all of them are free.
    bool allocate_at(std::uint64_t first, std::uint64_t pages) noexcept;
    // Any part of what was allocated.
    void free(std::uint64_t first, std::uint64_t pages) noexcept;

    // Every page of the range is in a buffer.
    bool is_allocated(std::uint64_t first, std::uint64_t pages) const noexcept;
    // Pages from `first` on, at most `pages`, that are all in buffers, or all in none, as `first` is.
    std::uint64_t run(std::uint64_t first, std::uint64_t pages) const noexcept;
    std::uint64_t allocated_pages() const noexcept {
        return allocated_pages_.load(std::memory_order_relaxed);
    }

    // nullptr, or what is wrong. With the lock held.
    const char* validate() const noexcept;

  private:
    struct Entry {
        std::uint32_t run;  // pages of the free run that starts or ends here; 0: neither
        std::uint32_t next;
        std::uint32_t previous;
    };
    static constexpr std::uint32_t none = ~std::uint32_t{0};
    static constexpr unsigned lists_max = 33 * 4;
    static constexpr unsigned fit_tries_max = 32;

    static unsigned list_of(std::uint64_t pages) noexcept;
    bool take(unsigned list, unsigned tries, std::uint64_t pages, std::uint64_t alignment,
              std::uint64_t* first) noexcept;
    void carve(std::uint32_t run_first, std::uint64_t first, std::uint64_t pages) noexcept;
    void link(std::uint64_t first, std::uint64_t pages) noexcept;
    void unlink(std::uint32_t first) noexcept;
    void mark(std::uint64_t first, std::uint64_t pages, bool allocated) noexcept;
    bool free_at(std::uint64_t page) const noexcept;
    std::uint32_t run_first(std::uint64_t free_page) const noexcept;

    std::uint64_t pages_ = 0;
    std::uint64_t base_page_ = 0;
    std::atomic<std::uint64_t> allocated_pages_{0};
    Entry* entries_ = nullptr;
    std::atomic<std::uint64_t>* bits_ = nullptr;  // one per page: allocated
    std::array<std::uint32_t, lists_max> heads_;
    os::Mapping entries_memory_;
    os::Mapping bits_memory_;
};

}  // namespace pnode
