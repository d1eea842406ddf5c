// What was found of one corpus.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/codec/packing.h"
#include "bench/codec/variant.h"
#include "bench/common/samples.h"

namespace pnode::bench {

struct CodecRow {
    Variant variant;
    std::optional<Packed> packed;
    std::string reason;  // why it is not complete; "" when it is
    // A heap's own; or, for what heaps do not store yet, a heap's with lz4 with the decoding of this in the
    // place of that: then fault_is_computed. Neither: 0.
    double fault_p50_ns = 0, fault_p99_ns = 0;
    bool fault_is_computed = false;
};

struct CorpusResults {
    std::string corpus;
    std::string source;
    std::string missing;  // why nothing was measured; "" when it was
    std::uint64_t pages = 0;
    std::vector<CodecRow> rows;
    std::optional<std::uint64_t> zram_bytes;
    std::string why_no_zram;
    std::optional<Round> zram_fault;
    std::string why_no_zram_fault;
};

// "For redis: --codec lz4: ...": what this machine should use for this data, and why, in one line. For more
// than one corpus: for all of it together.
std::string answer(const std::vector<CorpusResults>& results);

}  // namespace pnode::bench
