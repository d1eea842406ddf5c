// What pnode is to reach, beside what was measured and what bounds it.
#pragma once

#include <vector>

#include "bench/report/tables.h"

namespace pnode::bench {

// A row for each aim of which `runs` have the number; no rows: none. Where the kernel's part alone (a floor,
// in the same run) misses an aim too, nothing that serves pages that way can reach it.
Table aims_of(const std::vector<Run>& runs);

}  // namespace pnode::bench
