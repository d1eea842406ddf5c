// Prints what was found: a table, JSON lines, or comma-separated values.
#pragma once

#include <vector>

#include "bench/codec/options.h"
#include "bench/codec/results.h"

namespace pnode::bench {

class CodecReport {
  public:
    explicit CodecReport(const CodecOptions& options) : options_(options) {}
    // Printed at once: the corpora take their time.
    void begin() const;
    void add(const CorpusResults& result) const;
    void end(const std::vector<CorpusResults>& results) const;

  private:
    const CodecOptions& options_;
};

}  // namespace pnode::bench
