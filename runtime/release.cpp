// Release: the application gave pages back. Their contents are dropped wherever they are, never compressed.

#include <sys/mman.h>

#include <algorithm>

#include "runtime/heap.h"

namespace pnode {
namespace {

constexpr std::uint64_t piece_pages = 256;

void forget_blob(Heap& heap, PageWord word) noexcept {
    if (word.place() == cxl::no_blob) return;
    if (word.state() == PageState::near)
        heap.statistics.kept_blob_bytes.subtract(heap.far.bytes(word).size());
    heap.far.drop(word);
}

void release_piece(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    PageWord before[piece_pages];
    for (std::uint64_t index = 0; index < pages; ++index) before[index] = own(heap, first + index);
    os::drop_pages(heap.address_of(first), pages * page_bytes);
    std::uint64_t discharged = 0;
    std::uint64_t far = 0;
    for (std::uint64_t index = 0; index < pages; ++index) {
        discharged += drop_contents(heap, before[index], &far);
        // A pinned page stays pinned and near: it reads as zeros from now on, and pin() is who brings fresh
        // pages in.
        heap.word(first + index).publish(PageWord().with_pinned(before[index].pinned()));
    }
    heap.near.discharge(discharged);
    heap.far_room_made(far);
}

// In a chunk the kernel looks after it is one call; false: the chunk is tracked, or became so meanwhile.
bool release_untracked(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    const std::uint64_t chunk = heap.chunk_of(first);
    if (heap.chunks.state(chunk) == ChunkState::untracked) {
        os::drop_pages(heap.address_of(first), pages * page_bytes);
        if (heap.chunks.state(chunk) == ChunkState::untracked) return true;
    }
    return heap.chunks.settled_state(chunk) == ChunkState::untracked;
}

}  // namespace

// What the page's state held besides its bytes. Its charge comes off the ledger; a page in limbo belongs to
// its evictor, who sees that it was not first: the page's staging copy goes with the batch.
std::uint64_t drop_contents(Heap& heap, PageWord word, std::uint64_t* far) noexcept {
    switch (word.state()) {
        case PageState::near:
            forget_blob(heap, word);
            return 1;
        case PageState::far:
            forget_blob(heap, word);
            heap.statistics.far_pages.subtract(1);
            ++*far;
            return 0;
        case PageState::limbo:
            if (!word.in_place()) forget_blob(heap, heap.slot(word.place()).word);
            return 1;
        default:
            return 0;
    }
}

// Waits for other owners; everybody who owns several pages takes them in ascending order, so nobody waits in
// a circle.
PageWord own(Heap& heap, std::uint64_t page) noexcept {
    os::Backoff backoff;
    for (;;) {
        const PageWord word = heap.word(page).load();
        if (word.state() != PageState::busy && heap.word(page).make_busy(word)) return word;
        backoff.wait();
    }
}

void release(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    heap.statistics.released_pages.add(pages);
    for (std::uint64_t done = 0; done < pages;) {
        const std::uint64_t page = first + done;
        const std::uint64_t chunk_end = (heap.chunk_of(page) + 1) * heap.chunk_pages;
        std::uint64_t piece = std::min(pages - done, chunk_end - page);
        if (!release_untracked(heap, page, piece)) {
            piece = std::min(piece, piece_pages);
            release_piece(heap, page, piece);
        }
        done += piece;
    }
}

}  // namespace pnode
