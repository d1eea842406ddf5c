#include "bench/churn/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bench/churn/accesses.h"
#include "bench/common/machine.h"

namespace pnode::bench {
namespace {

constexpr double background_cpu_percent_max = 1.0;  // what a steady working set may cost

// Only while nothing is evicted are threads beside the accessing ones "background".
bool is_steady(const ChurnKey& key) {
    return key.name == name_of(Mix::steady);
}

double mebibytes(std::uint64_t bytes) {
    return static_cast<double>(bytes) / (1 << 20);
}

}  // namespace

double ChurnReport::Row::middle(double ChurnMeasurement::*field) const {
    std::vector<double> values;
    for (const ChurnMeasurement& measurement : measurements) values.push_back(measurement.*field);
    return median(std::move(values));
}

ChurnReport::Row& ChurnReport::row_of(const ChurnKey& key) {
    const auto same =
        std::find_if(rows_.begin(), rows_.end(), [&](const Row& row) { return row.key == key; });
    return same != rows_.end() ? *same : rows_.emplace_back(Row{key, {}, {}, ""});
}

void ChurnReport::add(const ChurnKey& key, const ChurnMeasurement& measurement) {
    Row& row = row_of(key);
    row.measurements.push_back(measurement);
    row.rounds.push_back(measurement.round);
}

void ChurnReport::miss(const ChurnKey& key, const std::string& reason) {
    row_of(key).reason = reason;
}

void ChurnReport::note(const std::string& sentence) {
    if (std::find(notes_.begin(), notes_.end(), sentence) == notes_.end()) notes_.push_back(sentence);
}

const ChurnReport::Row* ChurnReport::zram_of(const Row& row) const {
    ChurnKey wanted = row.key;
    wanted.engine = "zram";
    for (const Row& other : rows_)
        if (other.key == wanted) return &other;
    return nullptr;
}

double ChurnReport::ratio_to_zram(const Row& row) const {
    const Row* zram = zram_of(row);
    if (zram == nullptr || !zram->has_numbers() || !row.has_numbers()) return 0;
    return ratio_per_s(row.rounds, zram->rounds);
}

void ChurnReport::print_json(const ChurnOptions& options) const {
    nlohmann::ordered_json first = header("pnode-bench-churn", options.as_json());
    first["notes"] = notes_;
    puts(first.dump().c_str());
    for (const Row& row : rows_) {
        nlohmann::ordered_json line = {{"kind", "row"},
                                       {"case", row.key.name},
                                       {"near_percent", row.key.near_percent},
                                       {"threads", row.key.threads},
                                       {"engine", row.key.engine},
                                       {"codec", "lz4"}};
        const bool measured = row.has_numbers();
        const Round round = median(row.rounds);
        const auto number = [&](double value) {
            return measured ? nlohmann::ordered_json(std::llround(value)) : nlohmann::ordered_json();
        };
        line["per_s"] = number(round.per_s);
        line["spread"] = measured ? ratio_json(spread_per_s(row.rounds)) : nlohmann::ordered_json();
        line["p50_ns"] = number(round.p50_ns);
        line["p99_ns"] = number(round.p99_ns);
        line["mean_ns"] = number(round.mean_ns);
        line["percentiles_ns"] = measured ? percentiles_json(round) : nlohmann::ordered_json();
        line["cpu_ns"] = number(row.middle(&ChurnMeasurement::cpu_ns));
        line["background_cpu_percent"] = nullptr;
        if (measured && is_steady(row.key))
            line["background_cpu_percent"] =
                std::round(row.middle(&ChurnMeasurement::background_cpu_percent) * 1000) / 1000;
        line["near_bytes"] = number(measured ? static_cast<double>(row.measurements.back().near_bytes) : 0);
        line["far_bytes"] = number(measured ? static_cast<double>(row.measurements.back().far_bytes) : 0);
        line["ratio_to_zram"] = ratio_json(ratio_to_zram(row));
        const Row* zram = zram_of(row);
        const std::string& reason = !row.reason.empty() || zram == nullptr ? row.reason : zram->reason;
        line["reason"] = reason.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(reason);
        puts(line.dump().c_str());
    }
}

void ChurnReport::print_row(const Row& row) const {
    printf("%-15s %4d%% %7d  %-9s", row.key.name.c_str(), row.key.near_percent, row.key.threads,
           row.key.engine.c_str());
    if (!row.has_numbers()) {
        printf(" none: %s\n", row.reason.c_str());
        return;
    }
    const Round round = median(row.rounds);
    printf(" %9.2f %9.2f %9.2f %10.0f %6.0f%% %8.1f %8.1f", round.p50_ns / 1e3, round.p99_ns / 1e3,
           row.middle(&ChurnMeasurement::cpu_ns) / 1e3, round.per_s, spread_per_s(row.rounds) * 100,
           mebibytes(row.measurements.back().near_bytes), mebibytes(row.measurements.back().far_bytes));
    if (const double ratio = ratio_to_zram(row); ratio > 0)
        printf(" %7.2f\n", ratio);
    else
        printf(" %7s\n", "-");
}

void ChurnReport::print_table() const {
    printf("%-15s %5s %7s  %-9s %9s %9s %9s %10s %7s %8s %8s %7s\n", "case", "near", "threads", "engine",
           "p50 us", "p99 us", "CPU us", "accesses/s", "spread", "near MiB", "far MiB", "to zram");
    for (const Row& row : rows_) print_row(row);
    puts(
        "\nMedians over rounds; spread: (best - worst) / median of accesses/s; to zram: median of each "
        "round's ratio of accesses/s.\nCPU: of the whole process, an access. near: for zram what its control "
        "group is charged, the program included; far: physical, kept blobs included.\ninline+: the inline "
        "engine with a far limit as large as the memory: all near pages may keep their blobs. inline*, "
        "thread*: "
        "who pins what devices write to (PN_HEAP_PINNED_IO). inline=: the inline engine with as much for "
        "near and far together as zram's pages and its compressed bytes are.\n"
        "floor: the kernel's part alone, uncompressed, with a copy of every page; what is written to "
        "leaves by UFFDIO_MOVE. floor-lz4: all copies are compressed, and decoded.");
    for (const Row& row : rows_) {
        if (!is_steady(row.key) || !row.has_numbers() || row.key.engine == "zram") continue;
        const double percent = row.middle(&ChurnMeasurement::background_cpu_percent);
        printf(
            "%s engine, %d thread(s), a steady working set that fits: %.2f %% of a CPU beside it (at most "
            "%.0f: %s)\n",
            row.key.engine.c_str(), row.key.threads, percent, background_cpu_percent_max,
            percent <= background_cpu_percent_max ? "met" : "NOT met");
    }
    for (const std::string& sentence : notes_) printf("note: %s\n", sentence.c_str());
}

}  // namespace pnode::bench
