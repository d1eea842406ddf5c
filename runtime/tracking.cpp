#include <algorithm>
#include <mutex>
#include <utility>

#include "runtime/heap.h"
#include "runtime/holds.h"

namespace pnode {
namespace {

// A page that was never touched is the kernel's to fill until it is watched, and absent afterwards: what a
// thread holds for a system call (holds.h) has to be there before. The chunk is claimed, so whoever writes a
// page down from here on waits for its word.
void fill_held_pages(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    if (!any_holds()) return;
    hold_fence();
    const std::uint64_t base = reinterpret_cast<std::uint64_t>(heap.base) / page_bytes;
    for_each_held(base + first, base + first + pages, [&](std::uint64_t from, std::uint64_t end) {
        for (std::uint64_t page = from; page < end; ++page) {
            if ((heap.traits[page - base] & PageTraits::handed_out) != 0) continue;
            // Piece by piece: parts of what is held may be inaccessible, or read-only.
            std::byte* const address = heap.address_of(page - base);
            if (os::populate(address, page_bytes, os::Populate::write) != 0)
                os::populate(address, page_bytes, os::Populate::read);
        }
    });
}

}  // namespace

// In pieces: which pages the kernel has, in place or swapped out. After registration a fresh page can only
// appear through resolve(), so what is found here and still fresh was touched before.
// How many. Nobody takes them out before the chunk is tracked.
std::uint64_t adopt_present_pages(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    constexpr std::uint64_t piece_pages = 1024;
    unsigned char occupied[piece_pages];
    std::uint64_t found = 0;
    for (std::uint64_t done = 0; done < pages; done += piece_pages) {
        const std::uint64_t piece = std::min(piece_pages, pages - done);
        const bool known = os::find_occupied(heap.page_map, heap.address_of(first + done), piece * page_bytes,
                                             occupied) == 0;
        for (std::uint64_t index = 0; index < piece; ++index) {
            // Unknown means "there", if it is somebody's: a near page that is not there is harmless,
            // resolve() and the evictor find out.
            const std::uint64_t page = first + done + index;
            if (known ? (occupied[index] & 1) == 0 : !heap.spans.is_allocated(page, 1)) continue;
            // The hand does not come here before the chunk is tracked.
            heap.near_map.mark(page);
            const PageWord word = heap.word(page).load();
            if (word.state() != PageState::fresh) continue;
            found +=
                heap.word(page).exchange(word, PageWord().with_pinned(word.pinned()).with(PageState::near))
                    ? 1
                    : 0;
        }
    }
    return found;
}

namespace {

// call(descriptor, address, bytes) for each part that one descriptor is to watch; its first error.
template <class Call>
int by_descriptor(Heap& heap, std::uint64_t first, std::uint64_t pages, Call call) noexcept {
    const std::uint64_t middle = std::clamp(heap.engine_change.boundary(), first, first + pages);
    int error = 0;
    for (const auto& [at, end] : {std::pair(first, middle), std::pair(middle, first + pages)}) {
        if (error == 0 && at < end)
            error = call(heap.engine_change.descriptor_of(heap, at), heap.address_of(at),
                         (end - at) * page_bytes);
    }
    return error;
}

}  // namespace

int watch_pages(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    int error = 0;
    heap.traits.for_each(first, pages, PageTraits::handed_out, 0, [&](std::uint64_t at, std::uint64_t count) {
        if (error == 0)
            error = by_descriptor(heap, at, count, [&](int fd, void* address, std::size_t bytes) {
                os::keep_unmerged(address, bytes);
                return os::uffd_register(fd, address, bytes, heap.uffd_mode());
            });
    });
    return error;
}

int unwatch_pages(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    return by_descriptor(heap, first, pages, [](int fd, void* address, std::size_t bytes) {
        return os::uffd_unregister(fd, address, bytes);
    });
}

// In ascending order, so that two that want the same wait for each other in no circle; who tracks a chunk
// claims one alone.
ChunksClaimed::ChunksClaimed(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept
    : heap_(heap), first_chunk_(heap.chunk_of(first)), end_chunk_(heap.chunk_of(first + pages - 1) + 1) {
    for (std::uint64_t chunk = first_chunk_; chunk < end_chunk_; ++chunk) {
        os::Backoff backoff;
        while (heap.chunks.state(chunk) != ChunkState::tracked && !heap.chunks.claim(chunk)) backoff.wait();
        tracked_ += heap.chunks.state(chunk) == ChunkState::tracked ? 1 : 0;
    }
}

ChunksClaimed::~ChunksClaimed() {
    for (std::uint64_t chunk = first_chunk_; chunk < end_chunk_; ++chunk) {
        if (heap_.chunks.state(chunk) == ChunkState::tracking)
            heap_.chunks.set_state(chunk, ChunkState::untracked);
    }
}

bool track_chunk(Heap& heap, std::uint64_t chunk) noexcept {
    os::Backoff backoff;
    while (!heap.chunks.claim(chunk)) {
        if (heap.chunks.state(chunk) == ChunkState::tracked) return true;
        backoff.wait();
    }
    const std::uint64_t first = chunk * heap.chunk_pages;
    const std::uint64_t pages = std::min(heap.chunk_pages, heap.page_count - first);
    fill_held_pages(heap, first, pages);
    if (const int error = watch_pages(heap, first, pages)) {
        heap.chunks.set_state(chunk, ChunkState::untracked);
        static std::atomic<bool> told{false};
        if (!told.exchange(true))
            report("a range cannot be watched (errno %d): raise vm.max_map_count; it stays near", error);
        return false;
    }
    heap.tracked_chunks.fetch_add(1, std::memory_order_relaxed);
    std::uint64_t present = 0;
    heap.traits.for_each(first, pages, PageTraits::handed_out, 0, [&](std::uint64_t at, std::uint64_t count) {
        present += adopt_present_pages(heap, at, count);
    });
    const std::lock_guard lock(heap.span_lock);
    // In this order: pages that were charged unseen are not charged twice, which the peak would remember.
    heap.near.discharge(heap.chunks.allocated_pages(chunk));
    heap.near.charge(present, heap.statistics);
    heap.chunks.set_state(chunk, ChunkState::tracked);
    return true;
}

}  // namespace pnode
