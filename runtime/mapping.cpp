// What a heap's address space is to the kernel: protections, reservations, and pages where something else is
// mapped. It is all the heap's from open to close: nothing is ever unmapped, so that the kernel never puts
// anything of its own between two buffers.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <mutex>

#include "runtime/heap.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {

// What becomes accessible for the first time is charged as what is allocated.
void Heap::charge_reserved(std::uint64_t first, std::uint64_t pages) noexcept {
    traits.for_each(first, pages, PageTraits::reserved, PageTraits::reserved,
                    [&](std::uint64_t at, std::uint64_t count) { charge_new(at, count); });
    const std::lock_guard lock(span_lock);
    traits.set(first, pages, PageTraits::reserved, 0);
}

int Heap::protect(std::uint64_t first, std::uint64_t pages, int protection) {
    std::uint64_t more = 0;
    if (protection != PROT_NONE) {
        traits.for_each(first, pages, PageTraits::reserved, PageTraits::reserved,
                        [&](std::uint64_t, std::uint64_t count) { more += count; });
    }
    if (more != 0) {
        activate_if_due(more);
        if (config.strict && !has_room_for(more)) return ENOMEM;
    }
    const os::SignalsBlocked signals;
    const Inside inside(operations);
    if (more != 0) charge_reserved(first, pages);
    if (::mprotect(address_of(first), pages * page_bytes, protection) != 0) return errno;
    const std::lock_guard lock(span_lock);
    traits.set(first, pages, 7, PageTraits::of_protection(protection));
    return 0;
}

// Inaccessible until it is watched again, so that no first touch goes unseen.
int Heap::take_back(std::uint64_t first, std::uint64_t pages) noexcept {
    const os::SignalsBlocked signals;
    const Inside inside(operations);
    if (const int error = map_again(first, pages)) return error;
    // Of a page that was touched while it was handed out, the state it had got.
    release(*this, first, pages);
    return 0;
}

int Heap::map_again(std::uint64_t first, std::uint64_t pages) noexcept {
    const ChunksClaimed claimed(*this, first, pages);
    void* const address = address_of(first);
    const std::uint64_t bytes = pages * page_bytes;
    if (::mmap(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
        MAP_FAILED)
        return errno;
    ::madvise(address, bytes, MADV_NOHUGEPAGE);
    {
        const std::lock_guard lock(span_lock);
        traits.set(first, pages, 0xff, PageTraits::reserved | PageTraits::of_protection(PROT_NONE));
    }
    for (std::uint64_t page = first; page < first + pages;) {
        const std::uint64_t end = std::min(first + pages, (chunk_of(page) + 1) * chunk_pages);
        if (chunks.state(chunk_of(page)) == ChunkState::tracked && watch_pages(*this, page, end - page) != 0)
            return mark_handed_out(page, first + pages - page);
        page = end;
    }
    return 0;
}

}  // namespace pnode
