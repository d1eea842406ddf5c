// What the kernel writes to at moments that nobody can hold it for (signal frames, a thread's end) stays near
// for good.
//
// Thread rule: any thread, from the handler of a dispatched call.
#pragma once

#include <cstdint>

#include "preload/hooks.h"
#include "preload/mapping_state.h"
#include "runtime/holds.h"
#include "runtime/process.h"

namespace pnode::preload {

// Page by page: what cannot be pinned any more (a poisoned page, no room to promise anything) is no reason to
// leave out the rest. A thread that forks has shut the gate that a pin goes through, and nothing leaves before
// it opens it again: what is near then is near in the child.
inline void keep_near(std::uint64_t address, std::uint64_t bytes) noexcept {
    if (address == 0 || bytes == 0) return;
    if (is_forking_here()) {
        Hold::bring_near(address, bytes);
        return;
    }
    for (std::uint64_t page = address & ~page_mask; page < address + bytes; page += PN_PAGE_BYTES) {
        const bool managed = page >= heap_range().first && page < heap_range().end;
        if (managed) pn_pin(heap_served(), reinterpret_cast<void*>(page), PN_PAGE_BYTES);
    }
}

}  // namespace pnode::preload
