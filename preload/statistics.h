// The statistics file: at exit, and every so often when the settings say so.
#pragma once

#include "pnode/pnode.h"

namespace pnode::preload {

// At exit() the process that called this writes the heap's statistics to the file of the settings. Forked
// children write nothing. Once, from within InsideRuntime.
void statistics_write_at_exit(pn_heap* heap) noexcept;

}  // namespace pnode::preload
