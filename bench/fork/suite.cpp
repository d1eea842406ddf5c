#include "bench/fork/suite.h"

#include <cmath>
#include <cstdio>
#include <memory>

#include "bench/common/interrupt.h"
#include "bench/common/machine.h"
#include "bench/common/samples.h"
#include "bench/fork/subject.h"

namespace pnode::bench {
namespace {

constexpr double parent_ratio_max = 1.15;  // of the plain process

struct Variant {
    const char* name;
    std::unique_ptr<Subject> subject;
    std::vector<ForkTimes> times;
};

std::vector<Variant> start_subjects(const ForkOptions& options) {
    const std::size_t all_bytes =
        options.near_bytes / static_cast<std::size_t>(100 - options.far_percent) * 100;
    const std::string near = std::to_string(options.near_bytes);
    std::vector<Variant> variants(3);
    variants[0] = {"plain", std::make_unique<Subject>(std::vector<std::string>{}, options.near_bytes, 0), {}};
    variants[1] = {"near",
                   std::make_unique<Subject>(std::vector<std::string>{options.pnode, "run", "--near",
                                                                      std::to_string(8 * options.near_bytes),
                                                                      "--activation", "1M", "--"},
                                             options.near_bytes, 0),
                   {}};
    // The watermark is below the limit; what else the process has is a few MiB.
    variants[2] = {"far",
                   std::make_unique<Subject>(std::vector<std::string>{options.pnode, "run", "--near", near,
                                                                      "--activation", "1M", "--"},
                                             all_bytes, options.near_bytes + (std::size_t{16} << 20)),
                   {}};
    return variants;
}

std::vector<double> ratios(const Variant& variant, const Variant& plain, double ForkTimes::*field) {
    std::vector<double> result;
    for (std::size_t round = 0; round < plain.times.size(); ++round)
        result.push_back(variant.times[round].*field / plain.times[round].*field);
    return result;
}

std::vector<double> times_ns(const Variant& variant, double ForkTimes::*field) {
    std::vector<double> result;
    for (const ForkTimes& times : variant.times) result.push_back(times.*field);
    return result;
}

constexpr struct {
    const char* name;
    double ForkTimes::*field;
} spans[] = {{"fork() in the parent", &ForkTimes::parent_ns},
             {"until the child runs", &ForkTimes::child_ns},
             {"until the child is gone", &ForkTimes::reaped_ns}};

void print_row(const Variant& variant, const Variant& plain, const char* what, double ForkTimes::*field) {
    const std::vector<double> ns = times_ns(variant, field);
    const std::vector<double> ratio = ratios(variant, plain, field);
    std::printf("%-6s %-24s %9.0f %9.0f %9.0f %8.2f  %.2f to %.2f\n", variant.name, what, median(ns) / 1e3,
                quantile(ns, 0.25) / 1e3, quantile(ns, 0.75) / 1e3, quantile(ratio, 0.5),
                quantile(ratio, 0.25), quantile(ratio, 0.75));
}

void print(const std::vector<Variant>& variants) {
    for (const Variant& variant : variants)
        std::printf("%-6s resident anonymous memory %.1f MiB\n", variant.name,
                    static_cast<double>(variant.subject->anonymous_bytes()) / (1 << 20));
    std::printf("\n%-6s %-24s %9s %9s %9s %8s  %s\n", "", "", "us", "quartile", "quartile", "to plain",
                "quartiles");
    for (const Variant& variant : variants)
        for (const auto& span : spans) print_row(variant, variants[0], span.name, span.field);
    for (const Variant& variant : variants) {
        if (&variant == &variants[0]) continue;
        const double ratio = quantile(ratios(variant, variants[0], &ForkTimes::parent_ns), 0.5);
        std::printf("%s: fork() takes %.2f times the plain process's (at most %.2f: %s)\n", variant.name,
                    ratio, parent_ratio_max, ratio <= parent_ratio_max ? "met" : "NOT met");
    }
}

void print_json(const std::vector<Variant>& variants, const ForkOptions& options) {
    const nlohmann::ordered_json chosen = {
        {"near_bytes", options.near_bytes}, {"far_percent", options.far_percent}, {"rounds", options.rounds}};
    std::puts(header("pnode-bench-fork", chosen).dump().c_str());
    for (const Variant& variant : variants)
        for (const auto& span : spans) {
            const std::vector<double> ns = times_ns(variant, span.field);
            const nlohmann::ordered_json line = {
                {"kind", "row"},
                {"variant", variant.name},
                {"span", span.name},
                {"anonymous_bytes", variant.subject->anonymous_bytes()},
                {"p50_ns", std::llround(median(ns))},
                {"spread", ratio_json(spread(ns))},
                {"ratio_to_plain", ratio_json(median(ratios(variant, variants[0], span.field)))},
                {"ratio_to_zram", nullptr}};
            std::puts(line.dump().c_str());
        }
}

}  // namespace

void run_fork_suite(const ForkOptions& options) {
    std::vector<Variant> variants = start_subjects(options);
    for (int round = 0; round < options.rounds; ++round) {
        throw_if_interrupted();
        for (std::size_t turn = 0; turn < variants.size(); ++turn) {
            Variant& variant = variants[(static_cast<std::size_t>(round) + turn) % variants.size()];
            variant.times.push_back(variant.subject->fork_once());
        }
    }
    if (options.json)
        print_json(variants, options);
    else
        print(variants);
}

}  // namespace pnode::bench
