#include "preload/mappings.h"

#include <atomic>
#include <cerrno>

#include "preload/kernel_calls.h"
#include "preload/mapping_parts.h"
#include "preload/settings.h"

namespace pnode::preload {
namespace {

constexpr std::size_t large_page_bytes = std::size_t{2} << 20;
constexpr int not_ours = MAP_SHARED | MAP_STACK | MAP_GROWSDOWN | MAP_HUGETLB | MAP_LOCKED | MAP_32BIT;

constinit std::size_t capture_bytes_min = SIZE_MAX;
constinit bool strict_limit = false;
// Relaxed: who unmaps what another thread has lent has been told of it.
constinit std::atomic<bool> ever_lent{false};

bool is_private_anonymous(int flags) noexcept {
    return (flags & MAP_TYPE) == MAP_PRIVATE && (flags & MAP_ANONYMOUS) != 0;
}

// A hint elsewhere is a wish the kernel can fulfil and we cannot; one in the heap nobody can. Some who wish
// are content without, and then it may be asked for.
bool is_captured(Address hint, Range range, int protection, int flags) noexcept {
    const Range heap = heap_range();
    return range.bytes() >= capture_bytes_min && range.bytes() <= heap.bytes() / 2 &&
           is_private_anonymous(flags) && (flags & not_ours) == 0 &&
           (protection & ~(PROT_READ | PROT_WRITE)) == 0 &&
           (hint == 0 || (hint >= heap.first && hint < heap.end) || settings().captures_hints);
}

int protect_new(Range range, int protection) noexcept {
    if (protection == (PROT_READ | PROT_WRITE)) return 0;
    return pn_protect(heap_served(), at(range), range.bytes(), protection);
}

int capture(std::size_t bytes, int protection, Range* captured) noexcept {
    const MappingFrame frame;
    // Whoever maps this much and wants it aligned to large pages (allocators do) gets it at the first try.
    const std::size_t alignment = bytes >= large_page_bytes ? large_page_bytes : 0;
    void* start = nullptr;
    int error = protection == PROT_NONE ? pn_buffer_reserve(heap_served(), bytes, alignment, &start)
                                        : pn_buffer_alloc(heap_served(), bytes, alignment, &start);
    if (error != 0) return error;
    *captured = {reinterpret_cast<Address>(start), reinterpret_cast<Address>(start) + bytes};
    if (protection != PROT_NONE) error = protect_new(*captured, protection);
    if (error != 0) unmap_pages(*captured);
    return error;
}

// MAP_POPULATE promises nothing: its failure is none.
void populate(Range range, int protection, int flags) noexcept {
    constexpr int populate_read = 22;  // MADV_POPULATE_READ (5.14)
    constexpr int populate_write = 23;
    if ((flags & MAP_POPULATE) == 0 || (flags & MAP_NONBLOCK) != 0 || protection == PROT_NONE) return;
    populate_pages(range, (protection & PROT_WRITE) != 0 ? populate_write : populate_read);
}

// ---- MAP_FIXED: an unmap of what is there, and a map, in one ----

// One extent becomes zeros. PROT_NONE costs nothing while nobody can touch it: a reservation anew.
int renew_extent(Range part, std::uint32_t kind, bool reserved) noexcept {
    pn_heap* const heap = heap_served();
    if (kind == PN_EXTENT_FREE)
        return pn_buffer_alloc_at(heap, at(part), part.bytes(), reserved ? PN_RESERVED : 0);
    if (kind == PN_EXTENT_BUFFER) {
        forget_notes(part, all_notes);
        if (!reserved) return pn_release(heap, at(part), part.bytes());
        if (const int error = pn_hand_out(heap, at(part), part.bytes())) return error;
    }
    return pn_take_back(heap, at(part), part.bytes());
}

int renew_pages(Range range, int protection) noexcept {
    int error = 0;
    for_each_extent(heap_served(), range, [&](Range part, const pn_extent_t& extent) {
        error = renew_extent(part, extent.kind, protection == PROT_NONE);
        return error == 0;
    });
    if (error != 0) return error;
    return pn_protect(heap_served(), at(range), range.bytes(), protection & 7);
}

bool is_all_free(Range range) noexcept {
    return for_each_extent(heap_served(), range,
                           [](Range, const pn_extent_t& extent) { return extent.kind == PN_EXTENT_FREE; });
}

// What the kernel refuses must change nothing: so it is asked elsewhere first. 0, or minus an errno.
long try_elsewhere(Range range, std::size_t bytes, int protection, int flags, int fd,
                   std::int64_t offset) noexcept {
    const int anywhere = flags & ~(MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_POPULATE | MAP_LOCKED);
    const long trial = kernel::map(0, bytes, protection, anywhere, fd, offset);
    if (kernel::failed(trial)) return trial;
    kernel::unmap(static_cast<Address>(trial), range.bytes());
    return 0;
}

// Something that is not ours over our addresses.
long map_foreign(Range range, Range ours, std::size_t bytes, int protection, int flags, int fd,
                 std::int64_t offset) noexcept {
    if (const int error = hand_out_pages(ours)) return -error;
    const int over = (flags & ~MAP_FIXED_NOREPLACE) | MAP_FIXED;
    const long mapped = kernel::map(range.first, bytes, protection, over, fd, offset);
    if (kernel::failed(mapped)) unmap_pages(ours);
    return mapped;
}

long map_fixed(Range range, std::size_t bytes, int protection, int flags, int fd,
               std::int64_t offset) noexcept {
    const Range ours = range.within(heap_range());
    constexpr int kept_away = not_ours & ~MAP_STACK;
    const bool is_foreign =
        !is_private_anonymous(flags) || (flags & kept_away) != 0 || ours.bytes() != range.bytes();
    const bool replaces = (flags & MAP_FIXED_NOREPLACE) == 0;
    const auto try_foreign = [&] {
        return is_foreign ? try_elsewhere(range, bytes, protection, flags, fd, offset) : 0;
    };
    if (replaces) {
        if (const long refused = try_foreign()) return refused;
        vacate_lent_pages(ours);
    }
    {
        const MappingFrame frame;
        if (!replaces) {
            // Where the range leaves the heap, the kernel cannot know that our part of it is free.
            if (ours.bytes() != range.bytes() || !is_all_free(ours)) return -EEXIST;
            if (const long refused = try_foreign()) return refused;
        }
        if (is_foreign) return map_foreign(range, ours, bytes, protection, flags, fd, offset);
        if (const int error = renew_pages(ours, protection)) return -error;
    }
    populate(range, protection, flags);
    return static_cast<long>(range.first);
}

// Does this process have the key? An address above all of user space's is asked about, where nothing can
// change.
bool kernel_knows_key(int key) noexcept {
    constexpr Address nowhere = (Address{1} << 47) - PN_PAGE_BYTES;
    return kernel::protect_with_key(nowhere, PN_PAGE_BYTES, PROT_NONE, key) != -EINVAL;
}

}  // namespace

void mappings_capture(std::size_t bytes_min, bool strict) noexcept {
    capture_bytes_min = bytes_min;
    strict_limit = strict;
}

bool captures_mappings() noexcept {
    return capture_bytes_min != SIZE_MAX && !heap_range().is_empty();
}

long mapping_map(Address address, std::size_t bytes, int protection, int flags, int fd,
                 std::int64_t offset) noexcept {
    const bool fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
    Range range;
    if (heap_range().is_empty() || is_inside_runtime() ||
        (offset & static_cast<std::int64_t>(page_mask)) != 0 ||
        !whole_pages(fixed ? address : 0, bytes, &range))
        return kernel::map(address, bytes, protection, flags, fd, offset);
    if (fixed && range.touches(heap_range())) return map_fixed(range, bytes, protection, flags, fd, offset);
    if (!fixed && is_captured(address, range, protection, flags)) {
        Range captured;
        const int error = capture(range.bytes(), protection, &captured);
        if (error == 0) {
            populate(captured, protection, flags);
            return static_cast<long>(captured.first);
        }
        if (strict_limit) return -ENOMEM;
    }
    return kernel::map(address, bytes, protection, flags, fd, offset);
}

int unmap_pages(Range range) noexcept {
    pn_heap* const heap = heap_served();
    int error = 0;
    for_each_extent(heap, range, [&](Range part, const pn_extent_t& extent) {
        if (extent.kind == PN_EXTENT_FREE) return true;
        if (extent.kind == PN_EXTENT_HANDED_OUT) error = pn_take_back(heap, at(part), part.bytes());
        if (extent.kind == PN_EXTENT_BUFFER) {
            forget_notes(part, all_notes);
            // Refused (vm.max_map_count), a stray access reads zeros: that must not keep the pages.
            pn_protect(heap, at(part), part.bytes(), PROT_NONE);
        }
        if (error == 0) error = pn_buffer_free(heap, at(part), part.bytes());
        return error == 0;
    });
    return error;
}

int hand_out_pages(Range range) noexcept {
    pn_heap* const heap = heap_served();
    int error = 0;
    for_each_extent(heap, range, [&](Range part, const pn_extent_t& extent) {
        if (extent.kind == PN_EXTENT_HANDED_OUT) return true;
        if (extent.kind == PN_EXTENT_FREE)
            error = pn_buffer_alloc_at(heap, at(part), part.bytes(), PN_RESERVED);
        if (extent.kind == PN_EXTENT_BUFFER) forget_notes(part, all_notes);
        if (error == 0) error = pn_hand_out(heap, at(part), part.bytes());
        return error == 0;
    });
    return error;
}

int lend_pages(Range range) noexcept {
    pn_heap* const heap = heap_served();
    int error = 0;
    for_each_extent(heap, range, [&](Range part, const pn_extent_t& extent) {
        if (extent.kind != PN_EXTENT_BUFFER) return true;
        ever_lent.store(true, std::memory_order_relaxed);
        give_notes_to_kernel(part);
        error = pn_hand_out_contents(heap, at(part), part.bytes());
        return error == 0;
    });
    return error;
}

void vacate_lent_pages(Range range) noexcept {
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    while (ever_lent.load(std::memory_order_relaxed) && !range.is_empty()) {
        Range lent{range.end, range.end};
        {
            const MappingFrame frame;
            for_each_extent(heap_served(), range, [&](Range part, const pn_extent_t& extent) {
                if (extent.kind == PN_EXTENT_HANDED_OUT) lent = part;
                return extent.kind != PN_EXTENT_HANDED_OUT;
            });
        }
        if (!lent.is_empty()) kernel::map(lent.first, lent.bytes(), PROT_NONE, flags, -1, 0);
        range.first = lent.end;
    }
}

long mapping_unmap(Address address, std::size_t bytes) noexcept {
    Range range;
    if (!whole_pages(address, bytes, &range) || !range.touches(heap_range()))
        return kernel::unmap(address, bytes);
    if (is_inside_runtime()) return -ENOMEM;
    const Range ours = range.within(heap_range());
    if (range.first < ours.first) {
        const long result = kernel::unmap(range.first, ours.first - range.first);
        if (kernel::failed(result)) return result;
    }
    if (range.end > ours.end) {
        const long result = kernel::unmap(ours.end, range.end - ours.end);
        if (kernel::failed(result)) return result;
    }
    vacate_lent_pages(ours);
    const MappingFrame frame;
    return -unmap_pages(ours);
}

long mapping_protect(Address address, std::size_t bytes, int protection) noexcept {
    constexpr int known = PROT_READ | PROT_WRITE | PROT_EXEC | 8;  // PROT_SEM, which says nothing here
    Range range;
    if ((protection & ~known) != 0 || !whole_pages(address, bytes, &range) || !range.touches(heap_range()))
        return kernel::protect(address, bytes, protection);
    if (is_inside_runtime()) return -ENOMEM;
    const Range ours = range.within(heap_range());
    // In order, up to the first hole, as the kernel does it.
    if (range.first < ours.first) {
        const long result = kernel::protect(range.first, ours.first - range.first, protection);
        if (kernel::failed(result)) return result;
    }
    int error = 0;
    {
        const MappingFrame frame;
        for_each_extent(heap_served(), ours, [&](Range part, const pn_extent_t& extent) {
            if (extent.kind == PN_EXTENT_FREE) error = ENOMEM;
            if (extent.kind == PN_EXTENT_BUFFER)
                error = pn_protect(heap_served(), at(part), part.bytes(), protection & 7);
            if (extent.kind == PN_EXTENT_HANDED_OUT)
                error = static_cast<int>(-kernel::protect(part.first, part.bytes(), protection));
            return error == 0;
        });
    }
    if (error != 0 || range.end <= ours.end) return -error;
    return kernel::protect(ours.end, range.end - ours.end, protection);
}

long mapping_protect_with_key(Address address, std::size_t bytes, int protection, int key) noexcept {
    if (key == -1) return mapping_protect(address, bytes, protection);
    Range range;
    if (!whole_pages(address, bytes, &range) || !range.touches(heap_range()))
        return kernel::protect_with_key(address, bytes, protection, key);
    // Key 0 is every page's here. There is no other but by a bare system call.
    if (key != 0 || !kernel_knows_key(key)) return -EINVAL;
    return mapping_protect(address, bytes, protection);
}

// A page under a key can be read, and so moved, only by threads that hold the key's right, which the
// runtime's do not. So there is none to be had, as on a processor without them.
long mapping_alloc_key(unsigned flags, unsigned rights) noexcept {
    constexpr unsigned known_rights = 3;  // PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE
    if (heap_range().is_empty()) return kernel::call(SYS_pkey_alloc, flags, rights);
    return flags != 0 || (rights & ~known_rights) != 0 ? -EINVAL : -ENOSPC;
}

}  // namespace pnode::preload
