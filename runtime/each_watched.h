// A walk over what is registered with a heap's userfaultfd.
#pragma once

#include <cstdint>

#include "runtime/heap.h"

namespace pnode {

// visit(first page, pages) for each stretch of tracked pages that are ours, until one returns an error, which
// is the result. While nobody tracks a chunk or hands pages out.
template <class Visit>
int for_each_watched(Heap& heap, Visit visit) noexcept {
    int error = 0;
    const std::uint64_t chunk_end = heap.page_count / heap.chunk_pages;
    heap.chunks.for_each_tracked_run(chunk_end, [&](std::uint64_t chunk, std::uint64_t chunks) {
        heap.traits.for_each(chunk * heap.chunk_pages, chunks * heap.chunk_pages, PageTraits::handed_out, 0,
                             [&](std::uint64_t first, std::uint64_t pages) {
                                 if (error == 0) error = visit(first, pages);
                             });
    });
    return error;
}

}  // namespace pnode
