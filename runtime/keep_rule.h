// Which page keeps its blob when it comes near, and when near pages keep more than they should. A kept blob
// saves compressing, once, if its page leaves unchanged; until then its bytes are memory.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/page_word.h"

namespace pnode {

// Of a heap, now.
struct MemoryUse {
    std::uint64_t near_pages;
    std::uint64_t far_pages;
    std::uint64_t blob_bytes;  // physical: of far pages, and kept ones
    std::uint64_t kept_bytes;
    std::uint64_t total_pages;  // that near and far may take together; 0: no such limit

    constexpr std::uint64_t far_blob_bytes() const { return blob_bytes - std::min(blob_bytes, kept_bytes); }
};

struct KeepRule {
    // A page that comes back soon stays long, and its blob waits for as long: the higher its level, the less
    // of what may be kept has to be used. Measured: docs/performance.md.
    static constexpr std::uint64_t weighed(std::uint64_t kept_bytes, unsigned level) {
        return kept_bytes << (level > 1 ? level - 1 : 0);
    }

    // Half of what the far pages save, at most: their bytes, less their blobs'.
    static constexpr bool leaves_half_of_what_is_saved(const MemoryUse& use, unsigned level) {
        return 2 * weighed(use.kept_bytes, level) + use.far_blob_bytes() < use.far_pages * page_bytes;
    }

    // Under a total limit kept blobs take their bytes from near pages. To keep all of them, or none? They
    // save compressing at each turn, which is so many twentieths of a miss and its eviction; what they
    // take costs misses. The more is near the longer each blob waits for its turn, and the less a near page
    // costs: what its own blob would be is free then. For pages that are in use alike it is level where near
    // : far = compressing's part * (saved : blobs), with near as it is when all are kept: what is near now
    // follows from what was kept so far.
    static constexpr bool pays_in_total(const MemoryUse& use, std::uint64_t twentieths = 12) {
        if (use.far_pages == 0) return false;
        const std::uint64_t far_pages = use.far_pages, pages = use.near_pages + far_pages;
        const std::uint64_t blob_pages = std::min(use.far_blob_bytes() / page_bytes, far_pages);
        const std::uint64_t all_blobs = pages * blob_pages / far_pages;
        const std::uint64_t near_then = use.total_pages - std::min(use.total_pages, all_blobs);
        const std::uint64_t far_then = pages - std::min(pages, near_then);
        return near_then * blob_pages * 20 < far_then * (far_pages - blob_pages) * twentieths;
    }
    // So clearly that what is kept is better dropped: blobs are not to go and come.
    static constexpr bool is_waste_in_total(const MemoryUse& use) { return !pays_in_total(use, 15); }
};

}  // namespace pnode
