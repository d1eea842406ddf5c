// madvise(2), the mlock(2) family, mincore(2) and msync(2) where the heap is concerned.
#include <algorithm>
#include <cerrno>

#include "preload/kernel_calls.h"
#include "preload/mapping_parts.h"
#include "preload/mappings.h"
#include "preload/settings.h"
#include "preload/shield/held_call.h"

// Advice that is younger than Debian 12's headers.
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace pnode::preload {
namespace {

constexpr int guard_install = 102;  // MADV_GUARD_INSTALL, MADV_GUARD_REMOVE (6.13)
constexpr int guard_remove = 103;

enum class Meaning : std::uint8_t {
    kernels,  // whatever the kernel says
    drop,
    drop_locked,
    promote,
    demote,
    accepted,
    note,
    forget,
    refused,
};

struct Advice {
    int advice;
    Meaning meaning;
    std::uint8_t note;
};

constexpr Advice advice_table[] = {
    {MADV_NORMAL, Meaning::accepted, 0},
    {MADV_RANDOM, Meaning::accepted, 0},
    {MADV_SEQUENTIAL, Meaning::accepted, 0},
    {MADV_WILLNEED, Meaning::promote, 0},
    {MADV_DONTNEED, Meaning::drop, 0},
    {MADV_FREE, Meaning::drop, 0},
    {MADV_DONTNEED_LOCKED, Meaning::drop_locked, 0},
    {MADV_COLD, Meaning::demote, 0},
    {MADV_PAGEOUT, Meaning::demote, 0},
    // Large pages would leave 2 MiB at a time.
    {MADV_HUGEPAGE, Meaning::accepted, 0},
    {MADV_NOHUGEPAGE, Meaning::accepted, 0},
    {MADV_COLLAPSE, Meaning::refused, 0},
    // A page that is merged cannot be moved out, and its write protection is forgotten (os::keep_unmerged).
    {MADV_MERGEABLE, Meaning::accepted, 0},
    {MADV_UNMERGEABLE, Meaning::accepted, 0},
    {MADV_DONTFORK, Meaning::note, note_not_inherited},
    {MADV_DOFORK, Meaning::forget, note_not_inherited},
    {MADV_WIPEONFORK, Meaning::note, note_wiped},
    {MADV_KEEPONFORK, Meaning::forget, note_wiped},
    {MADV_DONTDUMP, Meaning::note, note_not_dumped},
    {MADV_DODUMP, Meaning::forget, note_not_dumped},
    {guard_install, Meaning::refused, 0},
    {guard_remove, Meaning::refused, 0},
};

Advice meaning_of(int advice) noexcept {
    for (const Advice& known : advice_table) {
        if (known.advice == advice) return known;
    }
    return {advice, Meaning::kernels, 0};
}

int drop(Range part) noexcept {
    return pn_release(heap_served(), at(part), part.bytes());
}

// As many as can be: it is advice.
int demote(Range part) noexcept {
    pn_demote(heap_served(), at(part), part.bytes(), nullptr);
    return 0;
}

// Up to the first locked page, which the kernel refuses to drop or to take out.
template <class Do>
int up_to_locked(Range part, Do act) noexcept {
    Range unlocked{part.first, part.first};
    while (unlocked.end < part.end && (notes_of(unlocked.end) & note_locked) == 0)
        unlocked.end += PN_PAGE_BYTES;
    const int error = unlocked.is_empty() ? 0 : act(unlocked);
    return error == 0 && unlocked.end < part.end ? EINVAL : error;
}

int advise_buffer(Range part, const Advice& advice) noexcept {
    switch (advice.meaning) {
        case Meaning::accepted:
            return 0;
        case Meaning::refused:
            return EINVAL;
        case Meaning::drop:
            return up_to_locked(part, drop);
        case Meaning::drop_locked:
            return drop(part);
        case Meaning::promote:
            pn_promote(heap_served(), at(part), part.bytes());  // a lost page is for its access to tell
            return 0;
        case Meaning::demote:
            return up_to_locked(part, demote);
        case Meaning::note:
            set_notes(part, advice.note, advice.note);
            break;
        case Meaning::forget:
            set_notes(part, advice.note, 0);
            break;
        case Meaning::kernels:
            break;
    }
    const bool of_fork = (advice.note & (note_not_inherited | note_wiped)) != 0;
    return of_fork ? 0 : static_cast<int>(-kernel::advise(part.first, part.bytes(), advice.advice));
}

// One part after the other; holes are told at the end.
class Advising {
  public:
    explicit Advising(int advice) noexcept : advice_(meaning_of(advice)) {}

    void outside(Range range) noexcept {
        if (error_ == 0 && !range.is_empty())
            note_result(static_cast<int>(-kernel::advise(range.first, range.bytes(), advice_.advice)));
    }
    // Handed-out parts are the kernel's, which may have somebody else wait (vacate_lent_pages): without the
    // frame.
    void inside(Range range) noexcept {
        while (error_ == 0 && !range.is_empty()) {
            const Range handed_out = up_to_handed_out(range);
            outside(handed_out);
            range.first = handed_out.end;
        }
    }
    bool has_failed() const noexcept { return error_ != 0; }
    long result() const noexcept { return error_ != 0 ? -error_ : hole_ ? -ENOMEM : 0; }

  private:
    // The first handed-out part, or what is behind the range's end; all before it is done.
    Range up_to_handed_out(Range range) noexcept {
        const MappingFrame frame;
        Range handed_out{range.end, range.end};
        for_each_extent(heap_served(), range, [&](Range part, const pn_extent_t& extent) {
            if (extent.kind == PN_EXTENT_FREE) hole_ = true;
            if (extent.kind == PN_EXTENT_HANDED_OUT) handed_out = part;
            if (extent.kind == PN_EXTENT_BUFFER) note_result(advise_buffer(part, advice_));
            return error_ == 0 && handed_out.is_empty();
        });
        return handed_out;
    }
    void note_result(int error) noexcept {
        if (error == ENOMEM) hole_ = true;
        if (error != 0 && error != ENOMEM) error_ = error;
    }

    Advice advice_;
    int error_ = 0;
    bool hole_ = false;
};

bool is_populate(int advice) noexcept {
    return advice == 22 || advice == 23;  // MADV_POPULATE_READ, MADV_POPULATE_WRITE (5.14)
}

bool has_hole(Range range) noexcept {
    return !for_each_extent(heap_served(), range,
                            [](Range, const pn_extent_t& extent) { return extent.kind != PN_EXTENT_FREE; });
}

// The kernel fills pages in by its own access: what is far is brought near before, where nobody else would.
long populate_piece(Range piece, int advice) noexcept {
    constexpr unsigned tries_max = 8;
    Hold hold;
    hold.add(piece.first, piece.bytes());
    for (unsigned tries = 0;; ++tries) {
        const long result = kernel::advise(piece.first, piece.bytes(), advice);
        if (result != -EFAULT || tries == tries_max || hold.look_again() == 0) return result;
    }
}

// Where the first page is that nobody has, or the range's end.
Address first_hole(Range range) noexcept {
    const MappingFrame frame;
    Address at = range.first;
    for_each_extent(heap_served(), range, [&](Range part, const pn_extent_t& extent) {
        if (extent.kind != PN_EXTENT_FREE) at = part.end;
        return extent.kind != PN_EXTENT_FREE;
    });
    return at;
}

// mlock(2) takes bytes anywhere in a page.
bool pages_around(Address first, std::size_t bytes, Range* range) noexcept {
    const std::size_t before = first & page_mask;
    return bytes <= SIZE_MAX - before && whole_pages(first - before, bytes + before, range);
}

// As the kernel: what cannot be filled (a page behind a file's end) is locked all the same, and so is what
// follows; it is told at the end. A hole ends it, and here a refused pin.
int lock_extents(Range range, int flags) noexcept {
    int unfilled = 0;
    int error = 0;
    for_each_extent(heap_served(), range, [&](Range part, const pn_extent_t& extent) {
        if (extent.kind == PN_EXTENT_FREE)
            error = ENOMEM;
        else if (extent.kind == PN_EXTENT_HANDED_OUT)
            unfilled |= static_cast<int>(-kernel::lock(part.first, part.bytes(), flags));
        else if (extent.protection == PROT_NONE)
            unfilled = ENOMEM;
        else
            error = lock_pages(part, flags);
        return error == 0;
    });
    return error != 0 ? error : unfilled;
}

// What the kernel has for our pages is asked of it; what it cannot know is added: what left is not gone.
void add_far_pages(Range part, unsigned char* vector) noexcept {
    constexpr std::size_t pages_max = 512;
    std::uint8_t states[pages_max];
    for (std::size_t done = 0; done < part.bytes(); done += pages_max * PN_PAGE_BYTES) {
        const std::size_t bytes = std::min(part.bytes() - done, pages_max * PN_PAGE_BYTES);
        if (pn_query(heap_served(), reinterpret_cast<void*>(part.first + done), bytes, states) != 0) return;
        for (std::size_t page = 0; page < bytes / PN_PAGE_BYTES; ++page) {
            if (states[page] != PN_PAGE_FRESH && states[page] != PN_PAGE_NEAR)
                vector[done / PN_PAGE_BYTES + page] = 1;
        }
    }
}

void lift_limits() noexcept {
    constexpr std::uint64_t none = std::uint64_t{1} << 62;
    pn_heap_set_total_limit(heap_served(), 0);
    pn_heap_set_near_limit(heap_served(), none);
}

void restore_limits() noexcept {
    const pn_heap_options& wanted = settings().heap;
    if (wanted.near_bytes_max != 0) pn_heap_set_near_limit(heap_served(), wanted.near_bytes_max);
    if (wanted.total_bytes_max != 0) pn_heap_set_total_limit(heap_served(), wanted.total_bytes_max);
}

}  // namespace

// In pieces, as they need not be near all at once.
long populate_pages(Range range, int advice) noexcept {
    constexpr std::size_t piece_bytes = std::size_t{1} << 20;
    long result = 0;
    while (result == 0 && !range.is_empty()) {
        const Range piece{range.first, range.first + std::min(range.bytes(), piece_bytes)};
        result = populate_piece(piece, advice);
        range.first = piece.end;
    }
    return result;
}

long mapping_advise(Address address, std::size_t bytes, int advice) noexcept {
    Range range;
    const bool ours_to_know = meaning_of(advice).meaning != Meaning::kernels || is_populate(advice);
    if (!ours_to_know || !whole_pages(address, bytes, &range) || !range.touches(heap_range()))
        return kernel::advise(address, bytes, advice);
    if (is_inside_runtime()) return -ENOMEM;
    const Range ours = range.within(heap_range());
    if (is_populate(advice)) {
        // Without the frame: it faults, and says itself where it could not.
        const Address hole = first_hole(ours);
        const Address end = hole == ours.end ? range.end : hole;
        const long result = end > range.first ? populate_pages({range.first, end}, advice) : 0;
        return result != 0 || end == range.end ? result : -ENOMEM;
    }
    Advising advising(advice);
    advising.outside({range.first, ours.first});
    if (!advising.has_failed()) advising.inside(ours);
    advising.outside({ours.end, range.end});
    return advising.result();
}

int lock_pages(Range range, int flags) noexcept {
    pn_heap* const heap = heap_served();
    int error = 0;
    for_each_noted(range, note_locked, 0, [&](Range part) {
        if (error != 0) return;
        error = pn_pin(heap, at(part), part.bytes());
        if (error == 0) set_notes(part, note_locked, note_locked);
    });
    if (error == 0) error = static_cast<int>(-kernel::lock(range.first, range.bytes(), flags));
    return error;
}

void unlock_pages(Range range) noexcept {
    for_each_noted(range.within(noted_range()), note_locked, note_locked, [](Range part) {
        kernel::unlock(part.first, part.bytes());
        pn_unpin(heap_served(), at(part), part.bytes());
        set_notes(part, note_locked, 0);
    });
}

void give_notes_to_kernel(Range range) noexcept {
    const Range noted = range.within(noted_range());
    for_each_noted(noted, note_locked, note_locked,
                   [](Range part) { pn_unpin(heap_served(), at(part), part.bytes()); });
    for_each_noted(noted, note_not_inherited, note_not_inherited,
                   [](Range part) { kernel::advise(part.first, part.bytes(), MADV_DONTFORK); });
    for_each_noted(noted, note_wiped, note_wiped,
                   [](Range part) { kernel::advise(part.first, part.bytes(), MADV_WIPEONFORK); });
    set_notes(range, all_notes, 0);
}

void forget_notes(Range range, std::uint8_t mask) noexcept {
    if ((mask & note_locked) != 0) unlock_pages(range);
    if ((mask & note_not_dumped) != 0) {
        for_each_noted(range.within(noted_range()), note_not_dumped, note_not_dumped,
                       [](Range part) { kernel::advise(part.first, part.bytes(), MADV_DODUMP); });
    }
    set_notes(range, mask, 0);
}

long mapping_lock(Address address, std::size_t bytes, int flags) noexcept {
    Range range;
    if (!pages_around(address, bytes, &range) || !range.touches(heap_range()) || (flags & ~1) != 0)
        return kernel::lock(address, bytes, flags);
    if (is_inside_runtime()) return -ENOMEM;
    const Range ours = range.within(heap_range());
    if (range.first < ours.first) {
        const long result = kernel::lock(range.first, ours.first - range.first, flags);
        if (kernel::failed(result)) return result;
    }
    {
        const MappingFrame frame;
        if (const int error = lock_extents(ours, flags)) return -error;
    }
    return range.end > ours.end ? kernel::lock(ours.end, range.end - ours.end, flags) : 0;
}

long mapping_unlock(Address address, std::size_t bytes) noexcept {
    Range range;
    if (!pages_around(address, bytes, &range) || !range.touches(heap_range()))
        return kernel::unlock(address, bytes);
    if (is_inside_runtime()) return -ENOMEM;
    const Range ours = range.within(heap_range());
    if (range.first < ours.first) {
        const long result = kernel::unlock(range.first, ours.first - range.first);
        if (kernel::failed(result)) return result;
    }
    {
        const MappingFrame frame;
        const bool whole = for_each_extent(heap_served(), ours, [](Range part, const pn_extent_t& extent) {
            if (extent.kind == PN_EXTENT_BUFFER) unlock_pages(part);
            if (extent.kind == PN_EXTENT_HANDED_OUT) kernel::unlock(part.first, part.bytes());
            return extent.kind != PN_EXTENT_FREE;
        });
        if (!whole) return -ENOMEM;
    }
    return range.end > ours.end ? kernel::unlock(ours.end, range.end - ours.end) : 0;
}

// Everything stays near from now on. The kernel locks what is there and what comes, but must not fill our
// address space, which is larger than the machine: MCL_ONFAULT.
long mapping_lock_all(int flags) noexcept {
    const Range heap = heap_range();
    if (heap.is_empty() || is_inside_runtime() || (flags & (MCL_CURRENT | MCL_FUTURE)) == 0)
        return kernel::call(SYS_mlockall, flags);
    const long result = kernel::call(SYS_mlockall, flags | MCL_ONFAULT);
    if (kernel::failed(result) || (flags & MCL_CURRENT) == 0) return result;
    const MappingFrame frame;
    lift_limits();
    for_each_extent(heap_served(), heap, [](Range part, const pn_extent_t& extent) {
        if (extent.kind == PN_EXTENT_BUFFER) pn_promote(heap_served(), at(part), part.bytes());
        return true;
    });
    return result;
}

long mapping_unlock_all() noexcept {
    const Range heap = heap_range();
    const long result = kernel::call(SYS_munlockall);
    if (heap.is_empty() || is_inside_runtime() || kernel::failed(result)) return result;
    const MappingFrame frame;
    unlock_pages(heap);
    restore_limits();
    return result;
}

long mapping_in_core(Address address, std::size_t bytes, unsigned char* vector) noexcept {
    Range range;
    const long arguments[6] = {os::argument(address), os::argument(bytes), os::argument(vector)};
    const long result = held_call(SYS_mincore, arguments, nullptr);
    if (kernel::failed(result) || !whole_pages(address, bytes, &range) || !range.touches(heap_range()) ||
        is_inside_runtime())
        return result;
    const Range ours = range.within(heap_range());
    const MappingFrame frame;
    if (has_hole(ours)) return -ENOMEM;
    for_each_extent(heap_served(), ours, [&](Range part, const pn_extent_t& extent) {
        if (extent.kind == PN_EXTENT_BUFFER)
            add_far_pages(part, vector + (part.first - range.first) / PN_PAGE_BYTES);
        return true;
    });
    return result;
}

long mapping_sync(Address address, std::size_t bytes, int flags) noexcept {
    Range range;
    const long result = kernel::sync(address, bytes, flags);
    if (kernel::failed(result) || !whole_pages(address, bytes, &range) || !range.touches(heap_range()) ||
        is_inside_runtime())
        return result;
    const MappingFrame frame;
    return has_hole(range.within(heap_range())) ? -ENOMEM : result;
}

void mappings_after_fork_in_child() noexcept {
    if (heap_range().is_empty()) return;
    const Range range = noted_range();
    if (range.is_empty()) return;
    unlock_pages(range);  // locks are not inherited
    for_each_noted(range, note_wiped, note_wiped,
                   [](Range part) { pn_release(heap_served(), at(part), part.bytes()); });
    for_each_noted(range, note_not_inherited, note_not_inherited, [](Range part) { unmap_pages(part); });
}

}  // namespace pnode::preload
