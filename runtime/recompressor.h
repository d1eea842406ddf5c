// The recompressor: a thread of a heap whose codec says so ("auto", "zstd:LEVEL,dict"). It makes the blobs of
// what stays far smaller: zstd, with a dictionary trained on the heap's own cold pages.
//
// It never owns a page while it works on it. It owns it to copy the blob out, lets go, decodes and compresses
// the copy, and owns it again to put the new blob in place of the old, if the page is what it was. Both take
// well under a microsecond, so that a fault finds the page as good as free; the fault wins, and the work is
// for nothing.
//
//     survey   how many far pages are how cold; a dictionary is trained when there is none, or no good one
//     sweep    over the page words, the coldest first: as many as a few thousand are worth
//     pack     when nothing is left to make smaller (packing.h)
//     rest     as long as the CPU it took says; for ever when nothing is left to do
//
// Thread rule: start(), stop(), settle() and forget() as os::Thread; something_far() by anybody; the rest is
// the thread's own. What it touches of the heap it touches inside the operations gate.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "compress/blob.h"
#include "runtime/far_tier.h"
#include "runtime/lanes.h"
#include "runtime/os/memory.h"
#include "runtime/os/thread.h"

namespace pnode {

class Heap;

class Recompressor {
  public:
    // Does the codec ask for it?
    static bool is_wanted(const Heap& heap) noexcept;
    // 0 or an errno; nothing to do where it is not wanted.
    int start(Heap& heap) noexcept;
    void settle() noexcept { thread_.settle(); }
    // heap.stop is set.
    void stop() noexcept;
    // In a forked child: the thread is not here, nor is its memory. What it owed is owed to nobody.
    void forget() noexcept;

    // A page went far: the thread may have something to do. Costs a load.
    void something_far() noexcept {
        if (rest_.load(std::memory_order_relaxed) == until_something_is_far) wake();
    }

    // Ages are epochs since the page left (heap.h), as far as its word tells them.
    static constexpr unsigned ages = stamps;
    // Before that many pages are cold there is nothing to train a dictionary on, or to gain.
    static constexpr std::uint64_t pages_min = 512;

  private:
    // What there is to do next, and when.
    enum class Next : std::uint8_t { at_once, soon, when_something_is_far };
    // What the far pages of a sweep are.
    struct Survey {
        std::uint64_t cold = 0;   // far, for long
        std::uint64_t work = 0;   // of these, to be made anew
        std::uint64_t later = 0;  // neither cold nor done
        std::array<std::uint32_t, ages> work_of_age{};
    };
    enum class Remade : std::uint8_t { gone, smaller, no_smaller, no_room };
    // How a dictionary does: bytes of a blob, on average.
    struct Rating {
        std::uint64_t at_first = 0;  // of pages like those it was trained on
        std::uint64_t lately = 0;    // times `weight`
        std::uint64_t pages = 0;     // since then
        unsigned in_vain = 0;        // times that no better one was found
        static constexpr std::uint64_t weight = 64;
        void begin(std::uint64_t bytes) noexcept { *this = {bytes, bytes * weight, 0, 0}; }
        // It does what it can. Each time it takes longer until another is tried.
        void stay() noexcept { *this = {lately / weight, lately, 0, in_vain < 16 ? in_vain + 1 : in_vain}; }
        void add(std::uint64_t bytes) noexcept {
            lately = lately - lately / weight + bytes;
            ++pages;
        }
        // By an eighth.
        bool has_drifted() const noexcept {
            return pages >= (4 * weight) << in_vain && lately / weight > at_first + at_first / 8;
        }
    };

    static void* main(void* heap) noexcept;
    void wake() noexcept;
    void rest(Heap& heap, Next next, std::uint64_t cpu_ns) noexcept;
    void wait(Heap& heap, std::uint32_t why, std::uint64_t wait_ns) noexcept;

    // recompress.cpp
    Next step(Heap& heap) noexcept;
    bool is_cold(Heap& heap, PageWord word) const noexcept;
    bool needs_work(Heap& heap, PageWord word) const noexcept;
    void look_at_time(Heap& heap) noexcept;
    void begin_survey(Heap& heap) noexcept;
    void count(Heap& heap, std::uint64_t page, PageWord word) noexcept;
    bool survey_piece(Heap& heap) noexcept;
    Next act_on_survey(Heap& heap) noexcept;
    void begin_sweep() noexcept;
    Next sweep_piece(Heap& heap) noexcept;
    unsigned consider(Heap& heap, std::uint64_t page, bool* no_room) noexcept;
    Remade remake(Heap& heap, std::uint64_t page, PageWord word) noexcept;
    // blocks.cpp
    unsigned consider_block(Heap& heap, std::uint64_t page, bool* no_room) noexcept;
    bool may_join(Heap& heap, std::uint64_t page, PageWord word, unsigned pages) const noexcept;
    Remade remake_block(Heap& heap, std::uint64_t first, unsigned pages) noexcept;
    unsigned age_of(const Heap& heap, PageWord word) const noexcept;
    // The page's bytes, decoded from a copy of its blob, to `contents`; how large the blob's slot is, or 0:
    // the page is not far as `word` says any more, or cannot be decoded.
    std::size_t read_far(Heap& heap, std::uint64_t page, PageWord word,
                         std::span<std::byte> contents) noexcept;

    // training.cpp
    bool is_training_due(Heap& heap) const noexcept;
    void train(Heap& heap) noexcept;
    std::uint64_t gather(Heap& heap, std::span<std::byte> samples, std::uint64_t* blob_bytes) noexcept;
    std::uint64_t bytes_with(Heap& heap, const compress::Dictionary* dictionary,
                             std::span<const std::byte> samples) noexcept;
    bool try_dictionary(Heap& heap, std::span<const std::byte> samples, std::uint64_t blob_bytes,
                        std::size_t content_bytes) noexcept;

    static constexpr std::uint32_t not_at_all = 0, until_something_is_far = 1, for_a_while = 2;
    std::atomic<std::uint32_t> rest_{not_at_all};  // why the thread sleeps; the word it sleeps on
    os::Thread thread_;

    os::Mapping memory_;  // of the next six
    std::span<std::byte> copy_;
    std::span<std::byte> pages_;  // a block's
    std::span<std::byte> blob_;
    std::span<std::byte> encode_scratch_;
    FarTier::Room room_;

    Survey survey_;
    Rating rating_;
    enum class Phase : std::uint8_t { between, surveying, sweeping, packing };
    Phase phase_ = Phase::between;
    std::uint64_t hand_ = 0;               // of the survey or the sweep: the next page
    unsigned age_min_ = 0;                 // of the sweep
    bool is_new_ = false;                  // the dictionary: what was in vain before may not be now
    std::uint64_t block_tried_ = no_page;  // the first page of the last block that came to nothing
    static constexpr std::uint64_t no_page = ~std::uint64_t{0};
    std::uint64_t evicted_ = 0;
    std::uint64_t evicted_since_ns_ = 0;   // since when it has been that many
    bool is_quiet_ = false;                // nothing was evicted for a while: what is far is cold
    std::uint64_t untrainable_pages_ = 0;  // so many cold pages did not make a good dictionary
};

}  // namespace pnode
