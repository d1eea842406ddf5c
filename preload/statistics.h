// The statistics file: at exit, and every so often when the settings say so.
#pragma once

#include "pnode/pnode.h"

namespace pnode::preload {

// At exit() the process that called this writes the heap's statistics to the file of the settings. Once, from
// within InsideRuntime.
void statistics_write_at_exit(pn_heap* heap) noexcept;

// Forked children write nothing, unless the file's name says that each process has its own (%p): then what a
// child counts goes on from what its parent had counted.
void statistics_after_fork_in_child() noexcept;

}  // namespace pnode::preload
