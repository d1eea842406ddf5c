// Collects rounds by case and variant, and prints them as a table or as JSON lines.
#pragma once

#include <string>
#include <vector>

#include "bench/churn/options.h"
#include "bench/common/samples.h"

namespace pnode::bench {

struct ChurnKey {
    std::string name;  // of the case
    int near_percent = 0;
    int threads = 0;
    std::string engine;
    bool operator==(const ChurnKey&) const = default;
};

struct ChurnMeasurement {
    Round round;
    double cpu_ns = 0;  // an access, of the whole process
    double background_cpu_percent = 0;
    std::uint64_t near_bytes = 0, far_bytes = 0;
};

class ChurnReport {
  public:
    void add(const ChurnKey& key, const ChurnMeasurement& measurement);
    // The row stays empty, or as far as it came, and says why.
    void miss(const ChurnKey& key, const std::string& reason);
    // The same sentence once.
    void note(const std::string& sentence);

    void print_json(const ChurnOptions& options) const;
    void print_table() const;

  private:
    struct Row {
        ChurnKey key;
        std::vector<ChurnMeasurement> measurements;
        std::vector<Round> rounds;  // of the same
        std::string reason;         // why it is not complete; "" when it is
        bool has_numbers() const { return reason.empty() && !rounds.empty(); }
        double middle(double ChurnMeasurement::*field) const;
    };
    Row& row_of(const ChurnKey& key);
    const Row* zram_of(const Row& row) const;
    double ratio_to_zram(const Row& row) const;
    void print_row(const Row& row) const;

    std::vector<Row> rows_;
    std::vector<std::string> notes_;
};

}  // namespace pnode::bench
