// One HTML file with everything in it: charts, tables, the numbers themselves.
#pragma once

#include <string>
#include <vector>

#include "bench/report/results.h"

namespace pnode::bench {

std::string html_page(const std::vector<Run>& runs);

}  // namespace pnode::bench
