// What a stretch of scratch is set up as, so that a library's context is made once and not at each call.
//
// Making a zstd context asks the CPU for its features; on a virtual machine that instruction traps and costs
// 10 us, more than decoding a page. So a context stays in the scratch and a label before it says that it is
// there, for which settings, and where it was made: scratch that was copied elsewhere (contexts hold pointers
// into themselves) or that another codec has used is made anew. This is why scratch must be zero-filled once
// before its first use (codec.h): random bytes are no label, but what an earlier owner of the memory left
// behind could be one.
//
// Thread rule: belongs to whoever holds the scratch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compress/codec.h"

namespace pnode::compress {

struct alignas(64) ScratchLabel {
    std::uint64_t tag;         // which kind of context follows
    const ScratchLabel* self;  // where it was made
    void* context;
    std::size_t context_bytes;
    std::int64_t level;

    bool names(std::uint64_t wanted_tag, std::size_t wanted_bytes, std::int64_t wanted_level) const noexcept {
        return tag == wanted_tag && self == this && context_bytes == wanted_bytes && level == wanted_level;
    }
    void clear() noexcept { *this = {}; }
    void set(std::uint64_t new_tag, void* new_context, std::size_t bytes, std::int64_t new_level) noexcept {
        *this = {new_tag, this, new_context, bytes, new_level};
    }
};
static_assert(sizeof(ScratchLabel) == scratch_alignment);

// `scratch` is aligned and holds at least a label.
inline ScratchLabel* scratch_label(MutableBytes scratch) noexcept {
    return reinterpret_cast<ScratchLabel*>(scratch.data());
}

}  // namespace pnode::compress
