// What a fault costs end to end: in a small heap with the inline engine, through the public API, and in
// kernel zram, the ways in turns.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bench/common/samples.h"
#include "bench/common/zram_swap.h"
#include "compress/codec.h"

namespace pnode::bench {

struct FaultCosts {
    std::map<std::string, Round> by_codec;        // "zram" is the kernel's
    std::map<std::string, std::string> why_none;  // for the others
};

// `swap` may be null. Throws what ends a benchmark: Interrupted, and a page that came back wrong.
FaultCosts measure_faults(compress::Bytes corpus, const std::vector<std::string>& codecs,
                          const ZramSwap* swap, int rounds);

// Pages of a corpus that are used for it; ZramSwap must hold twice as many.
inline constexpr std::size_t fault_pages_max = 2048;

}  // namespace pnode::bench
