// What the environment says, read once.
#pragma once

#include <cstddef>

#include "pnode/pnode.h"

namespace pnode::preload {

struct Settings {
    pn_heap_options heap;  // points into storage that lasts as long as the process
    bool captures_malloc;
    bool captures_mmap;
    bool captures_hints;            // mappings that wish for an address elsewhere
    std::size_t capture_bytes_min;  // of a mapping
    const char* stats_file;         // "" for none, "-" for standard error
    unsigned stats_every_ms;        // 0: at exit only
};

// From within InsideRuntime, before settings() is used. A bad value is told in one line, and its default
// holds.
void settings_read() noexcept;

// Constant after settings_read().
const Settings& settings() noexcept;

}  // namespace pnode::preload
