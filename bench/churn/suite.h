// The measurements themselves: rounds in which every variant has its turn.
#pragma once

#include "bench/churn/options.h"
#include "bench/churn/report.h"

namespace pnode::bench {

// Throws std::runtime_error when a byte was lost, Interrupted on a signal.
void run_churn_suite(const ChurnOptions& options, ChurnReport& report);

}  // namespace pnode::bench
