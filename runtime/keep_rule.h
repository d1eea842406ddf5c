// Which page keeps its blob when it comes near, and when near pages keep more than they should. A kept blob
// saves compressing, once, if its page leaves unchanged; until then its bytes are memory.
//
// So it should be the blob of a page that leaves again soon. Pages of low levels do (levels.h): with a blob
// they are hardly passed over, the hand takes them as it comes by, and what they need of memory is what comes
// near in one of its rounds. Those of high levels stay long without one, and are compressed the few times
// that they leave. The numbers were chosen by counts of real heaps: docs/performance.md.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/page_word.h"

namespace pnode {

// Of a heap, now.
struct MemoryUse {
    std::uint64_t near_pages_max;  // what is allowed
    std::uint64_t far_pages;
    std::uint64_t blob_bytes;  // physical: of far pages, and kept ones
    std::uint64_t kept_bytes;
    bool has_total;  // near and far share one limit

    constexpr std::uint64_t far_blob_bytes() const { return blob_bytes - std::min(blob_bytes, kept_bytes); }
};

struct KeepRule {
    // The level is the one the page has from now on.
    static constexpr bool keeps(const MemoryUse& use, unsigned level) {
        const std::uint64_t kept = weighed(use.kept_bytes, level);
        // Kept blobs take their bytes from near pages: a quarter of what far ones take, at most.
        if (use.has_total) return 4 * kept < use.far_blob_bytes();
        // An eighth of the near limit, or half of what the far pages save: their bytes, less their blobs'.
        return 8 * kept < use.near_pages_max * page_bytes ||
               2 * kept + use.far_blob_bytes() < use.far_pages * page_bytes;
    }
    // Under a total: so much that it is better dropped. Where little is near, or hardly anything far, it is
    // not worth looking for.
    static constexpr bool is_waste_in_total(const MemoryUse& use) {
        return 2 * use.kept_bytes > use.far_blob_bytes() &&
               64 * use.kept_bytes > use.near_pages_max * page_bytes;
    }
    // So many would be near under a total if no near page kept a blob. Ages are counted in it: what is soon
    // must not depend on what was kept, or all would be kept once much is.
    static constexpr std::uint64_t near_pages_if_none_kept(const MemoryUse& use, std::uint64_t near_pages) {
        const std::uint64_t far_blob_pages = use.far_blob_bytes() / page_bytes;
        if (far_blob_pages >= use.far_pages) return near_pages;
        return near_pages + use.kept_bytes / page_bytes * use.far_pages / (use.far_pages - far_blob_pages);
    }

  private:
    // What may be kept is for pages of low levels first: a page of level 4 keeps its blob while half of that
    // is free. Would all be given alike, whichever come first would use it, and as long as nothing has a
    // level it would take long until anything has.
    static constexpr std::uint64_t weighed(std::uint64_t kept_bytes, unsigned level) {
        return kept_bytes * (4 + level) / 4;
    }
};

}  // namespace pnode
