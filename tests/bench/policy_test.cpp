// The policy simulator: against what can be counted by hand, and against the optimum, which nothing beats.
#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "bench/policy/simulate.h"

namespace pnode::bench {
namespace {

Trace trace_of(const std::string& pages) {
    Trace trace{pages, 0, {}};
    for (const char page : pages) {
        const auto number = static_cast<std::uint32_t>(page - 'a');
        trace.accesses.push_back({number & 0xffu, 0});
        trace.pages = std::max(trace.pages, number + 1);
    }
    return trace;
}

const PolicyChoice& choice(const std::string& name) {
    for (const PolicyChoice& each : policies())
        if (each.name == name) return each;
    throw std::runtime_error("no policy " + name);
}

Counts run(const Trace& trace, std::uint32_t near_pages, const std::string& name, std::uint32_t kept) {
    return simulate(trace, near_pages, kept, *choice(name).make(trace, near_pages));
}

// The first half brings a, b and c near; of these b left first where the policy saw that a was used since.
TEST(BenchPolicy, CountsWhatAHandCounts) {
    const Trace trace = trace_of(
        "abac"
        "abab");
    // a b a c: lru and clock send b away, fifo a.
    EXPECT_EQ(run(trace, 2, "fifo", 2).promotions, 2u);     // a for b, b for c
    EXPECT_EQ(run(trace, 2, "lru", 2).promotions, 1u);      // b for c
    EXPECT_EQ(run(trace, 2, "optimum", 2).promotions, 1u);  // b
}

TEST(BenchPolicy, ALoopLargerThanNearDefeatsAllThatGoByAge) {
    const Trace loop = made_up_trace("loop", 1000, 20'000);
    for (const char* name : {"lru", "clock", "fifo"})
        EXPECT_EQ(run(loop, 500, name, 500).promotions, 10'000u) << name;
    EXPECT_NEAR(run(loop, 500, "optimum", 500).miss_ratio(), 0.5, 0.01);
}

TEST(BenchPolicy, NothingBeatsTheOptimum) {
    for (const std::string& name : trace_names()) {
        const Trace trace = made_up_trace(name, 600, 60'000);
        const std::uint64_t fewest = run(trace, 300, "optimum", 300).promotions;
        for (const PolicyChoice& each : policies()) {
            const Counts counts = run(trace, 300, each.name, 300);
            EXPECT_GE(counts.promotions, fewest) << name << " " << each.name;
            EXPECT_EQ(counts.accesses, 30'000u);
            // Every page has been touched before counting begins: one comes, one leaves.
            if (!name.starts_with("zipf-1.2-keys") && !name.starts_with("zipf-pages") &&
                name != "store-zipf") {
                EXPECT_EQ(counts.promotions, counts.dropped + counts.compressed) << name << " " << each.name;
            }
        }
    }
}

TEST(BenchPolicy, KeptBlobsAreDroppedOnlyWhereNothingWasWritten) {
    const Trace reads = made_up_trace("uniform", 600, 60'000);
    const Counts kept = run(reads, 300, "levels", 300), none = run(reads, 300, "levels", 0);
    // Pages that kept their blob leave a little earlier; where no page is warmer than another that is no
    // loss.
    EXPECT_NEAR(static_cast<double>(kept.promotions), static_cast<double>(none.promotions), 0.02 * 15'000);
    EXPECT_EQ(kept.compressed, 0u);
    EXPECT_EQ(none.dropped, 0u);
    const Counts mixed = run(made_up_trace("uniform/w50", 600, 60'000), 300, "levels", 300);
    EXPECT_GT(mixed.compressed, 0u);
    EXPECT_GT(mixed.dropped, 0u);
}

TEST(BenchPolicy, PricesEvents) {
    Counts counts;
    counts.accesses = 10;
    counts.promotions = 2;
    counts.dropped = 1;
    counts.compressed = 1;
    counts.looked_at = 100;
    EXPECT_NEAR(counts.us_per_access({1000, 100, 10, 5000, 1}), (2 * 1000 + 110 + 5100 + 100) / 1e4, 1e-9);
}

TEST(LevelRule, APageInUseAllTheTimeIsSoonAtTheTopAndACooledOneAtTheBottom) {
    unsigned level = 0;
    for (int returns = 0; returns < 3; ++returns) level = level_rule.next(level, 0);
    EXPECT_EQ(level, level_rule.level_max);
    for (unsigned returns = 0; returns < level_rule.level_max; ++returns)
        level = level_rule.next(level, level_rule.sink_age_min);
    EXPECT_EQ(level, 0u);
    EXPECT_EQ(level_rule.next(0, level_rule.sink_age_min), 0u);
    EXPECT_EQ(level_rule.sweeps(0, false), 0u);
    for (level = 0; level <= level_rule.level_max; ++level)
        for (const bool kept : {false, true}) EXPECT_LE(level_rule.sweeps(level, kept), skip_max);
}

// Half of the pages are near and all are asked for alike: a page that left comes back after as many evictions
// as there are near pages, on average, and may be back at once or very late.
TEST(LevelRule, WhatOnlyChanceBringsBackStaysLow) {
    std::mt19937_64 random(1);
    std::exponential_distribution<double> eighths(1.0 / 8);
    unsigned level = 0;
    std::uint64_t sum = 0;
    constexpr unsigned returns = 100'000;
    for (unsigned number = 0; number < returns; ++number) {
        level = level_rule.next(level, static_cast<std::uint64_t>(eighths(random)));
        sum += level;
    }
    EXPECT_LT(static_cast<double>(sum) / returns, level_rule.level_max / 2.0);
}

TEST(BenchPolicy, ReadsRecordedTraces) {
    std::istringstream text(
        "==12== Lackey\nI  04001000,3\n L 1ffe000,8\n S 1ffe008,8\n M 2000ff0,4\n L 1ffefff,1\nrubbish\n S "
        "5,\n");
    const Trace trace = recorded_trace(text, "recorded", 100);
    ASSERT_EQ(trace.accesses.size(), 4u);
    EXPECT_EQ(trace.pages, 3u);
    EXPECT_EQ(trace.accesses[0].page, 0u);
    EXPECT_EQ(trace.accesses[0].writes, 1u) << "neighbours on one page are one access, and it writes";
    EXPECT_EQ(trace.accesses[1].page, 1u);
    EXPECT_EQ(trace.accesses[2].page, 0u);
    EXPECT_EQ(trace.accesses[2].writes, 0u);
    std::istringstream none("nothing\n");
    EXPECT_THROW(recorded_trace(none, "none", 100), std::runtime_error);
}

bool keeps_none(const MemoryUse&, unsigned) {
    return false;
}
bool keeps_all(const MemoryUse&, unsigned) {
    return true;
}

Counts run_in_total(const Trace& trace, std::uint64_t total_pages,
                    bool (*keeps)(const MemoryUse&, unsigned)) {
    const SharedTotal memory = {
        .total_bytes = total_pages * page_bytes, .blob_bytes = page_bytes / 2, .keeps = keeps};
    return simulate(trace, memory,
                    *make_levels(trace.pages, memory.near_pages_if_none_kept(trace.pages), level_rule));
}

// Of 1000 pages with blobs of half a page 600 are near in room for 800, and 300 if they all keep theirs.
TEST(BenchPolicy, ATotalHasLessNearForEachBlobThatIsKept) {
    const Trace trace = made_up_trace("uniform", 1000, 40'000);
    EXPECT_NEAR(run_in_total(trace, 800, keeps_none).near_pages(), 600, 3);
    EXPECT_NEAR(run_in_total(trace, 800, keeps_all).near_pages(), 300, 3);
    EXPECT_EQ(run_in_total(trace, 800, keeps_none).dropped, 0u);
    EXPECT_EQ(run_in_total(trace, 800, keeps_all).compressed, 0u);
}

TEST(BenchPolicy, TheRuleOfKeptBlobsCostsLessThanAllAndThanNone) {
    for (const char* const name : {"uniform", "zipf-keys", "store-zipf", "uniform/w50"}) {
        const Trace trace = made_up_trace(name, 2000, 200'000);
        const double rule = run_in_total(trace, 1500, KeepRule::keeps).us_per_access({});
        EXPECT_LT(rule, run_in_total(trace, 1500, keeps_none).us_per_access({})) << name;
        EXPECT_LT(rule, run_in_total(trace, 1500, keeps_all).us_per_access({})) << name;
    }
}

}  // namespace
}  // namespace pnode::bench
