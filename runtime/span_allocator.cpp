#include "runtime/span_allocator.h"

#include <algorithm>
#include <bit>

namespace pnode {
namespace {

std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

// Calls `visit(word index, mask)` for each bitmap word that [first, first + count) touches; stops when it
// says false.
template <class Visit>
bool for_each_word(std::uint64_t first, std::uint64_t count, Visit visit) {
    while (count != 0) {
        const unsigned shift = first % 64;
        const std::uint64_t here = std::min<std::uint64_t>(count, 64 - shift);
        const std::uint64_t mask = (here == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << here) - 1))
                                   << shift;
        if (!visit(first / 64, mask)) return false;
        first += here;
        count -= here;
    }
    return true;
}

}  // namespace

int SpanAllocator::init(std::uint64_t pages, std::uint64_t base_page) noexcept {
    if (int error = entries_memory_.map(round_up((pages + 1) * sizeof(Entry), 4096))) return error;
    if (int error = bits_memory_.map(round_up(pages / 8 + 8, 4096))) return error;
    entries_ = reinterpret_cast<Entry*>(entries_memory_.address());
    bits_ = reinterpret_cast<std::atomic<std::uint64_t>*>(bits_memory_.address());
    pages_ = pages;
    base_page_ = base_page;
    heads_.fill(none);
    link(0, pages);
    return 0;
}

unsigned SpanAllocator::list_of(std::uint64_t pages) noexcept {
    const unsigned log = static_cast<unsigned>(std::bit_width(pages | 1)) - 1;
    const unsigned quarter = log >= 2 ? static_cast<unsigned>(pages >> (log - 2)) & 3 : 0;
    return log * 4 + quarter;
}

bool SpanAllocator::allocate(std::uint64_t pages, std::uint64_t alignment_pages,
                             std::uint64_t* first) noexcept {
    if (pages == 0 || pages > pages_) return false;
    for (unsigned list = list_of(pages); list < lists_max; ++list) {
        if (take(list, fit_tries_max, pages, alignment_pages, first)) return true;
    }
    // Rare: the fitting run hides behind many that do not. Look at every one before giving up.
    for (unsigned list = list_of(pages); list < lists_max; ++list) {
        if (take(list, ~0u, pages, alignment_pages, first)) return true;
    }
    return false;
}

bool SpanAllocator::take(unsigned list, unsigned tries, std::uint64_t pages, std::uint64_t alignment,
                         std::uint64_t* first) noexcept {
    for (std::uint32_t at = heads_[list]; at != none && tries != 0; at = entries_[at].next, --tries) {
        const std::uint64_t start = round_up(base_page_ + at, alignment) - base_page_;
        if (start + pages <= at + std::uint64_t{entries_[at].run}) {
            carve(at, start, pages);
            *first = start;
            return true;
        }
    }
    return false;
}

bool SpanAllocator::allocate_at(std::uint64_t first, std::uint64_t pages) noexcept {
    if (pages == 0 || first >= pages_ || pages > pages_ - first || !free_at(first)) return false;
    const std::uint32_t run = run_first(first);
    if (first + pages > run + std::uint64_t{entries_[run].run}) return false;
    carve(run, first, pages);
    return true;
}

// Free runs are maximal: this one begins behind the last allocated page before it.
std::uint32_t SpanAllocator::run_first(std::uint64_t free_page) const noexcept {
    std::uint64_t page = free_page;
    while (page != 0) {
        if (page % 64 == 0 && bits_[page / 64 - 1].load(std::memory_order_relaxed) == 0) {
            page -= 64;
        } else if (free_at(page - 1)) {
            --page;
        } else {
            break;
        }
    }
    return static_cast<std::uint32_t>(page);
}

void SpanAllocator::carve(std::uint32_t run_first, std::uint64_t first, std::uint64_t pages) noexcept {
    const std::uint64_t run_end = run_first + std::uint64_t{entries_[run_first].run};
    unlink(run_first);
    if (first > run_first) link(run_first, first - run_first);
    if (first + pages < run_end) link(first + pages, run_end - first - pages);
    mark(first, pages, true);
    allocated_pages_.fetch_add(pages, std::memory_order_relaxed);
}

void SpanAllocator::free(std::uint64_t first, std::uint64_t pages) noexcept {
    mark(first, pages, false);
    allocated_pages_.fetch_sub(pages, std::memory_order_relaxed);
    if (first != 0 && free_at(first - 1)) {
        const std::uint32_t before = entries_[first - 1].run;
        first -= before;
        pages += before;
        unlink(static_cast<std::uint32_t>(first));
    }
    if (first + pages < pages_ && free_at(first + pages)) {
        const auto after = static_cast<std::uint32_t>(first + pages);
        pages += entries_[after].run;
        unlink(after);
    }
    link(first, pages);
}

void SpanAllocator::link(std::uint64_t first, std::uint64_t pages) noexcept {
    const auto at = static_cast<std::uint32_t>(first);
    std::uint32_t& head = heads_[list_of(pages)];
    entries_[first + pages - 1].run = static_cast<std::uint32_t>(pages);
    entries_[at] = {static_cast<std::uint32_t>(pages), head, none};
    if (head != none) entries_[head].previous = at;
    head = at;
}

void SpanAllocator::unlink(std::uint32_t first) noexcept {
    const Entry entry = entries_[first];
    if (entry.previous != none) entries_[entry.previous].next = entry.next;
    if (entry.previous == none) heads_[list_of(entry.run)] = entry.next;
    if (entry.next != none) entries_[entry.next].previous = entry.previous;
    entries_[first + entry.run - 1].run = 0;
    entries_[first].run = 0;
}

void SpanAllocator::mark(std::uint64_t first, std::uint64_t pages, bool allocated) noexcept {
    for_each_word(first, pages, [&](std::uint64_t word, std::uint64_t mask) {
        if (allocated) bits_[word].fetch_or(mask, std::memory_order_relaxed);
        if (!allocated) bits_[word].fetch_and(~mask, std::memory_order_relaxed);
        return true;
    });
}

bool SpanAllocator::free_at(std::uint64_t page) const noexcept {
    return !is_allocated(page, 1);
}

bool SpanAllocator::is_allocated(std::uint64_t first, std::uint64_t pages) const noexcept {
    if (first >= pages_ || pages > pages_ - first) return false;
    return for_each_word(first, pages, [&](std::uint64_t word, std::uint64_t mask) {
        return (bits_[word].load(std::memory_order_relaxed) & mask) == mask;
    });
}

std::uint64_t SpanAllocator::run(std::uint64_t first, std::uint64_t pages) const noexcept {
    const bool allocated = is_allocated(first, 1);
    const std::uint64_t uniform = allocated ? ~std::uint64_t{0} : 0;
    std::uint64_t length = 1;
    while (length < pages) {
        const std::uint64_t page = first + length;
        if (page % 64 == 0 && pages - length >= 64 &&
            bits_[page / 64].load(std::memory_order_relaxed) == uniform) {
            length += 64;
        } else if (is_allocated(page, 1) == allocated) {
            ++length;
        } else {
            break;
        }
    }
    return length;
}

const char* SpanAllocator::validate() const noexcept {
    std::uint64_t free_pages = 0;
    for (unsigned list = 0; list < lists_max; ++list) {
        std::uint32_t previous = none;
        for (std::uint32_t at = heads_[list]; at != none; previous = at, at = entries_[at].next) {
            const std::uint64_t run = entries_[at].run;
            if (run == 0 || at + run > pages_) return "span: a free run is out of range";
            if (list_of(run) != list) return "span: a free run is in the wrong list";
            if (entries_[at].previous != previous) return "span: a free list's links disagree";
            if (entries_[at + run - 1].run != run) return "span: a free run's ends disagree";
            if (!free_at(at) || !free_at(at + run - 1)) return "span: a free run is marked allocated";
            free_pages += run;
            if (free_pages > pages_) return "span: free lists loop";
        }
    }
    return free_pages + allocated_pages() == pages_ ? nullptr : "span: pages are lost";
}

}  // namespace pnode
