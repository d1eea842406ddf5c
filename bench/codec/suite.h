// Every corpus, every way.
#pragma once

#include "bench/codec/options.h"
#include "bench/codec/report.h"

namespace pnode::bench {

// Throws std::runtime_error, Interrupted.
void run_codec_suite(const CodecOptions& options, const CodecReport& report);

}  // namespace pnode::bench
