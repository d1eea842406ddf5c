#include "bench/scale/suite.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/common/catalogue.h"
#include "bench/common/interrupt.h"
#include "bench/common/machine.h"
#include "bench/common/samples.h"
#include "bench/scale/subject.h"

namespace pnode::bench {
namespace {

// What a program's arenas are: stretches of pages, far from each other.
constexpr std::uint64_t sparse_area_pages = 64;

struct Measured {
    std::unique_ptr<ScaleSubject> subject;
    std::vector<double> read_ns, write_ns;
};

std::string text_of_catalogue() {
    std::string text;
    for (const Record& record : load_catalogue().records) text += record.text;
    return text;
}

std::string size_name(std::uint64_t bytes) {
    return bytes >> 30 != 0 ? std::to_string(bytes >> 30) + " GiB" : std::to_string(bytes >> 20) + " MiB";
}

std::vector<HeapShape> shapes(const ScaleOptions& options) {
    std::vector<HeapShape> all;
    for (const std::uint64_t bytes : options.dense_bytes) {
        const std::uint64_t pages = bytes / PN_PAGE_BYTES;
        all.push_back(
            {.name = size_name(bytes), .address_bytes = bytes, .pages = pages, .area_pages = pages});
    }
    if (options.sparse_bytes != 0)
        all.push_back({.name = size_name(options.sparse_bytes) + ", sparse",
                       .address_bytes = options.sparse_bytes,
                       .pages = options.sparse_pages,
                       .area_pages = sparse_area_pages});
    return all;
}

// In each round's own ratio noise that lasts longer than a round cancels out.
double ratio(const std::vector<double>& of, const std::vector<double>& to) {
    std::vector<double> ratios;
    for (std::size_t round = 0; round < of.size(); ++round) ratios.push_back(of[round] / to[round]);
    return median(ratios);
}

void print_table(const std::vector<Measured>& all) {
    std::printf("%-18s %10s %8s %9s %12s %7s %12s %7s\n", "heap", "pages", "far", "open ms", "read us",
                "ratio", "write us", "ratio");
    for (const Measured& each : all) {
        std::printf(
            "%-18s %10llu %7.0f%% %9.2f %12.2f %7.2f %12.2f %7.2f\n", each.subject->shape().name.c_str(),
            static_cast<unsigned long long>(each.subject->shape().pages), 100 * each.subject->far_share(),
            each.subject->open_ns() / 1e6, median(each.read_ns) / 1e3, ratio(each.read_ns, all[0].read_ns),
            median(each.write_ns) / 1e3, ratio(each.write_ns, all[0].write_ns));
    }
    std::printf(
        "\nTouches of random pages, by page brought near: a fault, and the eviction that makes room.\n"
        "Medians over rounds; ratio: median of each round's ratio to the first heap.\n");
}

void print_json(const std::vector<Measured>& all, const ScaleOptions& options) {
    const nlohmann::ordered_json chosen = {
        {"near_bytes", options.near_bytes}, {"touches", options.touches}, {"rounds", options.rounds}};
    std::puts(header("pnode-bench-scale", chosen).dump().c_str());
    for (const Measured& each : all) {
        const nlohmann::ordered_json line = {
            {"kind", "row"},
            {"heap", each.subject->shape().name},
            {"address_bytes", each.subject->shape().address_bytes},
            {"pages", each.subject->shape().pages},
            {"far_share", ratio_json(each.subject->far_share())},
            {"open_ns", std::llround(each.subject->open_ns())},
            {"read_ns", std::llround(median(each.read_ns))},
            {"read_spread", ratio_json(spread(each.read_ns))},
            {"read_ratio", ratio_json(ratio(each.read_ns, all[0].read_ns))},
            {"write_ns", std::llround(median(each.write_ns))},
            {"write_spread", ratio_json(spread(each.write_ns))},
            {"write_ratio", ratio_json(ratio(each.write_ns, all[0].write_ns))},
            {"ratio_to_zram", nullptr}};
        std::puts(line.dump().c_str());
    }
}

}  // namespace

void run_scale_suite(const ScaleOptions& options) {
    const std::string text = text_of_catalogue();
    std::vector<Measured> all;
    for (const HeapShape& shape : shapes(options))
        all.push_back({std::make_unique<ScaleSubject>(shape, text, options.near_bytes, all.size()), {}, {}});
    for (int round = 0; round < options.rounds; ++round) {
        for (Measured& each : all) {
            throw_if_interrupted();
            each.read_ns.push_back(each.subject->touch(options.touches, ScaleSubject::Touch::read));
            each.write_ns.push_back(each.subject->touch(options.touches, ScaleSubject::Touch::write));
        }
    }
    if (options.json)
        print_json(all, options);
    else
        print_table(all);
}

}  // namespace pnode::bench
