// Statistics as the public struct and as JSON.
#pragma once

#include <cstddef>

#include "pnode/pnode.h"
#include "runtime/heap.h"

namespace pnode {

// Any thread. The gauges are of slightly different moments.
void take_snapshot(Heap& heap, pn_stats_t* out) noexcept;

// Bytes written without the NUL, or 0: `capacity` is too small. Allocates nothing.
std::size_t stats_json(Heap& heap, char* text, std::size_t capacity) noexcept;

// Writes `path` by rename, so that a reader sees all of one snapshot. 0 or an errno. With
// StatsFile::writing() held.
int write_stats_file(Heap& heap, const char* path) noexcept;

}  // namespace pnode
