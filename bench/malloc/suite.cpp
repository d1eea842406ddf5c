#include "bench/malloc/suite.h"

#include <cmath>
#include <cstdio>
#include <memory>

#include "bench/common/chosen_names.h"
#include "bench/common/interrupt.h"
#include "bench/common/machine.h"
#include "bench/common/samples.h"
#include "bench/malloc/worker.h"

namespace pnode::bench {
namespace {

struct Variant {
    const char* name;
    std::vector<std::string> wrapper;
};

// The first is what the others are compared with.
std::vector<Variant> variants_of(const MallocOptions& options) {
    const std::string near = std::to_string(16 * options.live_bytes);
    return {{"jemalloc", {"/usr/bin/env", "LD_PRELOAD=" + options.jemalloc}},
            {"pnode", {options.pnode, "run", "--near", near, "--"}},
            {"libc", {"/usr/bin/env", "LD_PRELOAD="}}};
}

// Of one workload with one allocator, and that many threads.
struct Measured {
    const char* allocator;
    std::vector<double> per_s, ratios;  // of each round; to jemalloc's in the same round
};

// One process of each variant: none finds what another has left. The first round warms up.
void measure_processes(const MallocOptions& options, const Workload& workload, unsigned threads,
                       std::vector<Measured>* all) {
    std::vector<std::unique_ptr<Worker>> workers;
    for (const Variant& variant : variants_of(options))
        workers.push_back(std::make_unique<Worker>(variant.wrapper, variant.name));
    for (std::size_t round = 0; round <= static_cast<std::size_t>(options.rounds); ++round) {
        const Load load = {options.live_bytes, options.allocations, round};
        for (std::size_t turn = 0; turn < workers.size(); ++turn) {
            throw_if_interrupted();
            const std::size_t at = (round + turn) % workers.size();
            const double per_s = workers[at]->run(workload, load, threads);
            if (round != 0) (*all)[at].per_s.push_back(per_s);
        }
    }
}

// Runs of one process each differ by more than what is looked for (docs/performance.md), so there are
// several, one after another.
std::vector<Measured> measure(const MallocOptions& options, const Workload& workload, unsigned threads) {
    std::vector<Measured> all;
    for (const Variant& variant : variants_of(options)) all.push_back({variant.name, {}, {}});
    for (int process = 0; process < options.processes; ++process)
        measure_processes(options, workload, threads, &all);
    for (Measured& each : all)
        for (std::size_t round = 0; round < each.per_s.size(); ++round)
            each.ratios.push_back(each.per_s[round] / all[0].per_s[round]);
    return all;
}

void print_row(const Workload& workload, unsigned threads, const Measured& measured) {
    std::printf("%-8s %7u  %-8s %12.0f %11.2f  %.2f to %.2f\n", workload.name, threads, measured.allocator,
                median(measured.per_s), median(measured.ratios), quantile(measured.ratios, 0.25),
                quantile(measured.ratios, 0.75));
    std::fflush(stdout);
}

void print_json(const Workload& workload, unsigned threads, const Measured& measured) {
    const nlohmann::ordered_json line = {{"kind", "row"},
                                         {"workload", workload.name},
                                         {"threads", threads},
                                         {"allocator", measured.allocator},
                                         {"mallocs_per_s", std::llround(median(measured.per_s))},
                                         {"spread", ratio_json(spread(measured.per_s))},
                                         {"ratio_to_jemalloc", ratio_json(median(measured.ratios))},
                                         {"ratio_quartile_1", ratio_json(quantile(measured.ratios, 0.25))},
                                         {"ratio_quartile_3", ratio_json(quantile(measured.ratios, 0.75))},
                                         {"ratio_to_zram", nullptr}};
    std::puts(line.dump().c_str());
}

void print_head(const MallocOptions& options) {
    if (!options.json) {
        std::printf("%-8s %7s  %-8s %12s %11s  %s\n", "", "threads", "", "mallocs/s", "to jemalloc",
                    "quartiles");
        return;
    }
    const nlohmann::ordered_json chosen = {
        {"live_bytes", options.live_bytes}, {"allocations", options.allocations},
        {"processes", options.processes},   {"rounds", options.rounds},
        {"threads", options.threads},       {"workloads", options.workloads}};
    std::puts(header("pnode-bench-malloc", chosen).dump().c_str());
}

}  // namespace

void run_malloc_suite(const MallocOptions& options) {
    print_head(options);
    for (const Workload& workload : workloads()) {
        if (!is_chosen(options.workloads, workload.name)) continue;
        for (const unsigned threads : options.threads)
            for (const Measured& measured : measure(options, workload, threads))
                (options.json ? print_json : print_row)(workload, threads, measured);
    }
}

}  // namespace pnode::bench
