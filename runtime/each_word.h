// A walk over the page words of a heap's tracked chunks, as who looks for far pages needs it.
#pragma once

#include <cstdint>

#include "runtime/heap.h"

namespace pnode {

// Visits the words from `page` on, until visit() says false. The page after the last.
template <class Visit>
std::uint64_t for_each_word(Heap& heap, std::uint64_t page, Visit visit) noexcept {
    while (page < heap.page_count) {
        const std::uint64_t chunk = heap.chunk_of(page);
        if (heap.chunks.state(chunk) != ChunkState::tracked) {
            page = (chunk + 1) * heap.chunk_pages;
            continue;
        }
        // What was never near is not far.
        const std::uint64_t end = heap.end_of_chunk(chunk);
        page = heap.near_map.next_ever(page, end);
        if (page == end) continue;
        const std::uint64_t here = page++;
        if (!visit(here, heap.word(here).load())) break;
    }
    return page;
}

}  // namespace pnode
