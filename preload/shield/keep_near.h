// What the kernel writes to at moments that nobody can hold it for (signal frames, a thread's end) stays near for good.
//
// Thread rule: any thread, from the handler of a dispatched call.
#pragma once

#include <cstdint>

#include "preload/hooks.h"

namespace pnode::preload {

// Page by page: what cannot be pinned any more (a poisoned page, no room to promise anything) is no reason to leave out
// the rest.
inline void keep_near(std::uint64_t address, std::uint64_t bytes) noexcept {
    constexpr std::uint64_t in_page = PN_PAGE_BYTES - 1;
    if (address == 0 || bytes == 0) return;
    for (std::uint64_t page = address & ~in_page; page < address + bytes; page += PN_PAGE_BYTES) {
        auto* const at = reinterpret_cast<void*>(page);
        if (is_managed(at)) pn_pin(heap_served(), at, PN_PAGE_BYTES);
    }
}

}  // namespace pnode::preload
