#include "bench/fault/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/common/machine.h"
#include "bench/fault/options.h"

namespace pnode::bench {
namespace {

constexpr double fresh_time_limit = 1.10;  // of the kernel's own first touch

std::ptrdiff_t rank_of(const std::string& name) {
    return std::find(fault_case_names.begin(), fault_case_names.end(), name) - fault_case_names.begin();
}

}  // namespace

void FaultReport::add(const std::string& name, int threads, const std::string& engine,
                      const std::string& codec, const Round& round) {
    auto same = std::find_if(rows_.begin(), rows_.end(), [&](const Row& row) {
        return row.name == name && row.threads == threads && row.engine == engine && row.codec == codec;
    });
    if (same == rows_.end()) same = rows_.insert(rows_.end(), Row{name, threads, engine, codec, {}});
    same->rounds.push_back(round);
}

void FaultReport::note(const std::string& sentence) {
    if (std::find(notes_.begin(), notes_.end(), sentence) == notes_.end()) notes_.push_back(sentence);
}

const Row* FaultReport::find(const Row& like, const std::string& engine) const {
    for (const Row& row : rows_)
        if (row.name == like.name && row.threads == like.threads && row.engine == engine) return &row;
    return nullptr;
}

std::vector<const Row*> FaultReport::sorted() const {
    std::vector<const Row*> rows;
    for (const Row& row : rows_) rows.push_back(&row);
    std::stable_sort(rows.begin(), rows.end(), [](const Row* a, const Row* b) {
        return std::pair(rank_of(a->name), a->threads) < std::pair(rank_of(b->name), b->threads);
    });
    return rows;
}

void FaultReport::print_json(const FaultOptions& options) const {
    nlohmann::ordered_json first = header("pnode-bench-fault", options.as_json());
    first["notes"] = notes_;
    puts(first.dump().c_str());
    for (const Row* row : sorted()) {
        const Round middle = median(row->rounds);
        const Row* zram = find(*row, "zram");
        nlohmann::ordered_json line = {{"kind", "row"},
                                       {"case", row->name},
                                       {"threads", row->threads},
                                       {"engine", row->engine},
                                       {"codec", row->codec},
                                       {"p50_ns", std::llround(middle.p50_ns)},
                                       {"p99_ns", std::llround(middle.p99_ns)},
                                       {"mean_ns", std::llround(middle.mean_ns)},
                                       {"per_s", std::llround(middle.per_s)},
                                       {"spread", ratio_json(spread_per_s(row->rounds))},
                                       {"percentiles_ns", percentiles_json(middle)},
                                       {"ratio_to_zram", nullptr}};
        if (zram) line["ratio_to_zram"] = ratio_json(ratio_per_s(row->rounds, zram->rounds));
        puts(line.dump().c_str());
    }
    for (const std::string& sentence : notes_) fprintf(stderr, "note: %s\n", sentence.c_str());
}

void FaultReport::print_table() const {
    printf("%-22s %7s  %-12s %-5s %9s %9s %9s %10s %7s %9s %9s\n", "case", "threads", "engine", "codec",
           "p50 us", "p99 us", "mean us", "pages/s", "spread", "to kernel", "to zram");
    for (const Row* row : sorted()) {
        const Round middle = median(row->rounds);
        printf("%-22s %7d  %-12s %-5s %9.2f %9.2f %9.2f %10.0f %6.0f%%", row->name.c_str(), row->threads,
               row->engine.c_str(), row->codec.c_str(), middle.p50_ns / 1e3, middle.p99_ns / 1e3,
               middle.mean_ns / 1e3, middle.per_s, spread_per_s(row->rounds) * 100);
        for (const char* other : {"kernel", "zram"}) {
            const Row* base = find(*row, other);
            if (base)
                printf(" %9.2f", ratio_per_s(row->rounds, base->rounds));
            else
                printf(" %9s", "-");
        }
        puts("");
    }
    puts(
        "\nMedians over rounds; spread: (best - worst) / median of pages/s; ratios: median of each round's "
        "ratio of pages/s.");
    print_fresh_limit();
    for (const std::string& sentence : notes_) printf("note: %s\n", sentence.c_str());
}

// By the mean without the slowest 1 %: it sees every page, and not the programs beside this one.
void FaultReport::print_fresh_limit() const {
    for (const Row* row : sorted()) {
        const Row* kernel = find(*row, "kernel");
        if (!kernel || kernel == row) continue;
        const double time = ratio_usual_ns(row->rounds, kernel->rounds);
        printf(
            "%s, %d thread(s): a first touch in a heap (%s engine) takes %.2f times the kernel's (at most "
            "%.2f: %s)\n",
            row->name.c_str(), row->threads, row->engine.c_str(), time, fresh_time_limit,
            time <= fresh_time_limit ? "met" : "NOT met");
    }
}

}  // namespace pnode::bench
