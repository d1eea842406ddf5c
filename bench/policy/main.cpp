// pnode-bench-policy: which page should leave? Traces, made up or recorded, under several policies: the share
// of accesses that miss, and what the misses would cost here and on kernel zram. Nothing is timed: a run
// gives the same numbers anywhere. docs/performance.md has the findings.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>

#include "bench/common/interrupt.h"
#include "bench/common/machine.h"
#include "bench/policy/options.h"
#include "bench/policy/simulate.h"

namespace {

using namespace pnode::bench;
using pnode::level_rule;
using pnode::LevelRule;
using pnode::MemoryUse;

struct Candidate {
    std::string name;
    bool needs_accessed_bits = false;
    std::function<std::unique_ptr<Policy>(const Trace&, std::uint32_t near_pages)> make;
};

std::vector<Candidate> all_policies() {
    std::vector<Candidate> candidates;
    for (const PolicyChoice& choice : policies())
        candidates.push_back({choice.name, choice.needs_accessed_bits, choice.make});
    return candidates;
}

// Named "levels MAX LEAP/RISE/SINK", with ">>SHIFT" for pages that kept their blob; the runtime's first.
std::vector<Candidate> all_levels() {
    std::vector<Candidate> candidates;
    for (const LevelRule& rule : std::initializer_list<LevelRule>{level_rule,
                                                                  {4, 0, 3, 5, 2},
                                                                  {5, 0, 3, 5, 2},
                                                                  {7, 0, 3, 5, 2},
                                                                  {6, 1, 3, 5, 2},
                                                                  {6, 0, 2, 5, 2},
                                                                  {6, 0, 4, 6, 2},
                                                                  {6, 0, 3, 4, 2},
                                                                  {6, 0, 3, 7, 2},
                                                                  {6, 0, 3, 9, 2},
                                                                  {5, 0, 4, 17, 2},
                                                                  {6, 0, 3, 5, 0},
                                                                  {6, 0, 3, 5, 1},
                                                                  {6, 0, 3, 5, 3}}) {
        const std::string name = "levels " + std::to_string(rule.level_max) + " " +
                                 std::to_string(rule.leap_age_max) + "/" + std::to_string(rule.rise_age_max) +
                                 "/" + std::to_string(rule.sink_age_min) + ">>" +
                                 std::to_string(rule.kept_shift);
        candidates.push_back({name, false, [rule](const Trace& trace, std::uint32_t near_pages) {
                                  return make_levels(trace.pages, near_pages, rule);
                              }});
    }
    return candidates;
}

struct Setting {
    int near_percent;
    const char* other;  // what else was set
    int other_percent;
};

void print(const PolicyOptions& options, const Trace& trace, Setting setting, const Candidate& candidate,
           const Counts& counts) {
    const double here = counts.us_per_access({}), zram = counts.us_per_access(zram_costs);
    if (!options.json) {
        printf("%-18s %4d%% %4d%%  %-18s %7.4f %8.3f %8.3f %9.1f\n", trace.name.c_str(), setting.near_percent,
               setting.other_percent, candidate.name.c_str(), counts.miss_ratio(), here, zram,
               counts.promotions
                   ? static_cast<double>(counts.looked_at) / static_cast<double>(counts.promotions)
                   : 0);
        return;
    }
    const auto rounded = [](double value) { return std::round(value * 1e4) / 1e4; };
    puts(nlohmann::ordered_json({{"kind", "row"},
                                 {"trace", trace.name},
                                 {"near_percent", setting.near_percent},
                                 {setting.other, setting.other_percent},
                                 {"policy", candidate.name},
                                 {"needs_accessed_bits", candidate.needs_accessed_bits},
                                 {"miss_ratio", rounded(counts.miss_ratio())},
                                 {"promotions", counts.promotions},
                                 {"dropped", counts.dropped},
                                 {"compressed", counts.compressed},
                                 {"looked_at", counts.looked_at},
                                 {"us_per_access", rounded(here)},
                                 {"us_per_access_zram_costs", rounded(zram)}})
             .dump()
             .c_str());
}

void replay(const PolicyOptions& options, const Trace& trace) {
    const std::vector<Candidate> candidates = options.levels ? all_levels() : all_policies();
    for (const int near_percent : options.near_percents)
        for (const int kept_percent : options.kept_percents)
            for (const Candidate& candidate : candidates) {
                const auto near_pages = static_cast<std::uint32_t>(
                    std::max<std::uint64_t>(std::uint64_t{trace.pages} * near_percent / 100, 1));
                const auto kept_pages =
                    static_cast<std::uint32_t>(std::uint64_t{near_pages} * kept_percent / 100);
                const auto policy = candidate.make(trace, near_pages);
                print(options, trace, {near_percent, "kept_percent", kept_percent}, candidate,
                      simulate(trace, near_pages, kept_pages, *policy));
                throw_if_interrupted();
            }
}

struct Keeper {
    const char* name;
    bool (*keeps)(const MemoryUse& use, unsigned level);
};
constexpr Keeper keepers[] = {{"keep none", [](const MemoryUse&, unsigned) { return false; }},
                              {"keep rule", pnode::KeepRule::keeps},
                              {"keep all", [](const MemoryUse&, unsigned) { return true; }}};

// Of "near" it says how much was, on average.
void replay_total(const PolicyOptions& options, const Trace& trace) {
    for (const int total_percent : options.total_percents)
        for (const Keeper& keeper : keepers) {
            const SharedTotal memory = {
                .total_bytes = std::uint64_t{trace.pages} * pnode::page_bytes * total_percent / 100,
                .blob_bytes = pnode::page_bytes * options.blob_percent / 100,
                .keeps = keeper.keeps};
            const auto policy =
                make_levels(trace.pages, memory.near_pages_if_none_kept(trace.pages), level_rule);
            const Counts counts = simulate(trace, memory, *policy);
            const auto near_percent = static_cast<int>(std::lround(counts.near_pages() * 100 / trace.pages));
            print(options, trace, {near_percent, "total_percent", total_percent}, {keeper.name, false, {}},
                  counts);
            throw_if_interrupted();
        }
}

void compare(const PolicyOptions& options, const Trace& trace) {
    options.total_percents.empty() ? replay(options, trace) : replay_total(options, trace);
}

Trace from_file(const std::string& path, std::size_t accesses_max) {
    if (path == "-") return recorded_trace(std::cin, "standard input", accesses_max);
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot read " + path);
    return recorded_trace(file, path.substr(path.rfind('/') + 1), accesses_max);
}

void run(const PolicyOptions& options) {
    if (options.json)
        puts(header("pnode-bench-policy", options.as_json()).dump().c_str());
    else
        printf("%-18s %5s %5s  %-18s %7s %8s %8s %9s\n", "trace", "near",
               options.total_percents.empty() ? "kept" : "total", "policy", "misses", "us", "us, zram",
               "looks");
    for (const std::string& name : options.traces)
        compare(options, made_up_trace(name, options.pages, options.accesses));
    for (const std::string& path : options.files) compare(options, from_file(path, options.accesses));
    if (!options.json)
        puts(
            "\nmisses: accesses to far pages over accesses; us: what they cost an access, demotions "
            "included, "
            "at pnode's costs of each event, and at kernel zram's;\nlooks: page words looked at to choose "
            "one.");
}

}  // namespace

int main(int count, char** arguments) {
    PolicyOptions options;
    int exit_code = 0;
    if (!parse_policy_options(count, arguments, &options, &exit_code)) return exit_code;
    return run_driver("pnode-bench-policy", [&] { run(options); });
}
