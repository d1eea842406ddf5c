// The first line of every --json output: which machine, which kernel, which options.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/common/samples.h"

namespace pnode::bench {

// {"kind": "header", "program": ..., "machine": {...}, "kernel": ..., "options": ...}
nlohmann::ordered_json header(const std::string& program, nlohmann::ordered_json options);

// {"1": ns, "10": ns, ...}: a round's latency distribution.
nlohmann::ordered_json percentiles_json(const Round& round);

// Rounded to thousandths; null for what is not positive, which is what "not measured" is everywhere here.
nlohmann::ordered_json ratio_json(double ratio);

}  // namespace pnode::bench
