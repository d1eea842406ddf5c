#include "bench/redis/report.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/common/machine.h"

namespace pnode::bench {
namespace {

using nlohmann::ordered_json;

constexpr double mebibyte = 1 << 20;

double mebibytes(std::uint64_t bytes) {
    return static_cast<double>(bytes) / mebibyte;
}

struct Target {
    const char* variant;  // beginning of its name
    const char* base;
    double ratio;
    Workload workload;
};
// What the project promises (README): nothing cold must cost next to nothing; a small near limit must stay
// near kernel zram.
constexpr Target targets[] = {{"pnode-near", "plain", 0.98, Workload::get_uniform},
                              {"pnode-small", "zram", 0.80, Workload::get_uniform}};

// 0 when one of them did not run.
double ratio(const VariantResult* variant, const VariantResult* base, Workload workload) {
    if (!variant || !base) return 0;
    const auto a = variant->rounds.find(workload), b = base->rounds.find(workload);
    if (a == variant->rounds.end() || b == base->rounds.end()) return 0;
    return ratio_per_s(a->second, b->second);
}

// Null where they were not counted.
ordered_json effort_json(const VariantResult& variant, Workload workload, double Effort::*field) {
    const auto found = variant.efforts.find(workload);
    if (found == variant.efforts.end()) return nullptr;
    return std::round(found->second.*field * 1000) / 1000;
}

void print_rates(const RedisReport& report) {
    printf("%-14s %-12s %10s %7s %9s %9s %7s %7s %9s %9s %9s\n", "workload", "variant", "requests/s",
           "spread", "p50 us", "p99 us", "CPU us", "misses", "DRAM MiB", "to plain", "to zram");
    for (Workload workload : workloads)
        for (const VariantResult& variant : report.variants) {
            const auto rounds = variant.rounds.find(workload);
            if (rounds == variant.rounds.end()) continue;
            const Round middle = median(rounds->second);
            printf("%-14s %-12s %10.0f %6.0f%% %9.0f %9.0f", name_of(workload), variant.name.c_str(),
                   middle.per_s, spread_per_s(rounds->second) * 100, middle.p50_ns / 1e3,
                   middle.p99_ns / 1e3);
            const auto effort = variant.efforts.find(workload);
            if (effort != variant.efforts.end())
                printf(" %7.2f %7.3f %9.1f", effort->second.cpu_us, effort->second.misses,
                       effort->second.dram_bytes / mebibyte);
            else
                printf(" %7s %7s %9s", "-", "-", "-");
            for (const char* base : {"plain", "zram"})
                if (const double value = ratio(&variant, report.find(base), workload); value > 0)
                    printf(" %9.2f", value);
                else
                    printf(" %9s", "-");
            puts("");
        }
}

void print_memory(const RedisReport& report) {
    printf("\n%-12s %10s %10s %14s %10s\n", "variant", "limit MiB", "Rss MiB", "anonymous MiB", "verified");
    for (const VariantResult& variant : report.variants)
        printf("%-12s %10.1f %10.1f %14.1f %10llu\n", variant.name.c_str(), mebibytes(variant.limit_bytes),
               mebibytes(variant.rss_bytes), mebibytes(variant.anonymous_bytes),
               static_cast<unsigned long long>(variant.verified));
    for (const VariantResult& variant : report.variants)
        if (!variant.statistics.empty())
            printf("\n%s statistics: %s\n", variant.name.c_str(), variant.statistics.c_str());
}

void print_targets(const RedisReport& report) {
    puts("");
    for (const Target& target : targets)
        if (const double value =
                ratio(report.find(target.variant), report.find(target.base), target.workload);
            value > 0)
            printf("%s / %s, %s: %.3f (target %.2f: %s)\n", target.variant, target.base,
                   name_of(target.workload), value, target.ratio, value >= target.ratio ? "met" : "NOT met");
}

}  // namespace

const VariantResult* RedisReport::find(const std::string& beginning) const {
    for (const VariantResult& variant : variants)
        if (variant.name.starts_with(beginning)) return &variant;
    return nullptr;
}

void RedisReport::print_tables() const {
    printf("%u keys, %.1f MiB of values from %s\n", keys, mebibytes(value_bytes), dataset.c_str());
    printf("Need, of the plain server after loading: %.1f MiB anonymous (Rss %.1f MiB).\n",
           mebibytes(need_bytes), mebibytes(need_rss_bytes));
    if (!group_version.empty())
        printf(
            "A control group (%s) charges %.1f MiB beyond that; the zram variant's limit is pnode's near "
            "limit and this.\n",
            group_version.c_str(), mebibytes(group_extra_bytes));
    printf("\"small\" is a near limit of %d %% of the need.\n", near_percent);
    puts("");
    print_rates(*this);
    print_memory(*this);
    print_targets(*this);
    puts(
        "Medians over rounds; spread: (best - worst) / median; ratios: median of each round's ratio of "
        "requests/s. CPU and misses (pages brought near): of the server, a request, over all rounds. DRAM: "
        "all that the server takes after them, and the zram device for it.");
    for (const std::string& note : notes) printf("note: %s\n", note.c_str());
}

void RedisReport::print_json(const RedisOptions& options) const {
    ordered_json first = header("pnode-bench-redis", options.as_json());
    first["notes"] = notes;
    puts(first.dump().c_str());
    puts(ordered_json({{"kind", "setup"},
                       {"dataset", dataset},
                       {"keys", keys},
                       {"value_bytes", value_bytes},
                       {"need_bytes", need_bytes},
                       {"need_rss_bytes", need_rss_bytes},
                       {"group_extra_bytes", group_extra_bytes},
                       {"near_percent", near_percent}})
             .dump()
             .c_str());
    for (const VariantResult& variant : variants) {
        for (const auto& [workload, rounds] : variant.rounds) {
            const Round middle = median(rounds);
            puts(ordered_json({{"kind", "rate"},
                               {"workload", name_of(workload)},
                               {"variant", variant.name},
                               {"per_s", std::llround(middle.per_s)},
                               {"spread", std::round(spread_per_s(rounds) * 1000) / 1000},
                               {"p50_ns", std::llround(middle.p50_ns)},
                               {"p99_ns", std::llround(middle.p99_ns)},
                               {"mean_ns", std::llround(middle.mean_ns)},
                               {"cpu_us", effort_json(variant, workload, &Effort::cpu_us)},
                               {"misses", effort_json(variant, workload, &Effort::misses)},
                               {"dram_bytes", effort_json(variant, workload, &Effort::dram_bytes)},
                               {"ratio_to_plain", ratio_json(ratio(&variant, find("plain"), workload))},
                               {"ratio_to_zram", ratio_json(ratio(&variant, find("zram"), workload))}})
                     .dump()
                     .c_str());
        }
        ordered_json memory = {{"kind", "memory"},
                               {"variant", variant.name},
                               {"limit_bytes", variant.limit_bytes},
                               {"rss_bytes", variant.rss_bytes},
                               {"anonymous_bytes", variant.anonymous_bytes},
                               {"verified", variant.verified},
                               {"statistics", nullptr}};
        if (!variant.statistics.empty()) memory["statistics"] = ordered_json::parse(variant.statistics);
        puts(memory.dump().c_str());
    }
    for (const std::string& note : notes) fprintf(stderr, "note: %s\n", note.c_str());
}

}  // namespace pnode::bench
