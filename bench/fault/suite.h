// The measurements themselves: rounds in which every variant has its turn.
#pragma once

#include "bench/fault/options.h"
#include "bench/fault/report.h"

namespace pnode::bench {

// Throws std::runtime_error when a byte was lost, Interrupted on a signal.
void run_fault_suite(const FaultOptions& options, FaultReport& report);

}  // namespace pnode::bench
