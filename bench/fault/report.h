// Collects rounds by case and variant, and prints them as a table or as JSON lines.
#pragma once

#include <string>
#include <vector>

#include "bench/common/samples.h"
#include "bench/fault/options.h"

namespace pnode::bench {

struct Row {
    std::string name;  // of the case
    int threads = 0;
    std::string engine;
    std::string codec;
    std::vector<Round> rounds;
};

class FaultReport {
  public:
    void add(const std::string& name, int threads, const std::string& engine, const std::string& codec,
             const Round& round);
    // A sentence for the reader: what is missing and why, or where the data is from.
    void note(const std::string& sentence);

    void print_json(const FaultOptions& options) const;
    void print_table() const;

  private:
    const Row* find(const Row& like, const std::string& engine) const;
    std::vector<const Row*> sorted() const;
    void print_fresh_limit() const;

    std::vector<Row> rows_;
    std::vector<std::string> notes_;
};

}  // namespace pnode::bench
