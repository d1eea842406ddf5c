#include "tools/demo/samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <thread>

#include "tools/demo/failure.h"
#include "tools/demo/report.h"
#include "tools/demo/server.h"

namespace pnode::demo {
namespace {

constexpr std::uint64_t kMebibyte = 1ull << 20;
constexpr std::chrono::seconds kLoadedMachine{120};  // waited for only when something is broken
constexpr Limits kLimits{30 * kMebibyte};

Statistics statistics(std::uint64_t near_bytes, std::uint64_t far_bytes) {
    Statistics out = {};
    out.engine = "thread";
    out.numbers.near_bytes = out.numbers.near_bytes_peak = near_bytes;
    out.numbers.far_bytes = far_bytes;
    out.numbers.demotions = 1;
    return out;
}

std::string json(const Statistics& from) {
    std::string text = "{\"engine\": \"" + from.engine + "\", \"eviction\": \"move\"";
#define FIELD(name, unit, sentence) text += ", \"" #name "\": " + std::to_string(from.numbers.name);
    PN_STATS_LIST(FIELD)
#undef FIELD
    return text + "}";
}

// A run that keeps the limits to the byte, and then what `last` adds to it.
Judgement kept_and_then(const Statistics& last) {
    Judgement judgement(kLimits);
    judgement.add(statistics(32 * kMebibyte, 10 * kMebibyte));
    judgement.add_resident((30 + 10 + 48) * kMebibyte);
    judgement.add(last);
    return judgement;
}

TEST(Judgement, AcceptsWhatIsAtTheLimits) {
    const Judgement judgement = kept_and_then(statistics(32 * kMebibyte, 10 * kMebibyte));
    EXPECT_EQ(judgement.complaint(), "");
    EXPECT_EQ(judgement.samples(), 2u);
    EXPECT_EQ(judgement.resident_samples(), 1u);
    EXPECT_EQ(judgement.resident_peak(), 88 * kMebibyte);
}

TEST(Judgement, RejectsNearBytesOneByteOver) {
    const Judgement judgement = kept_and_then(statistics(32 * kMebibyte + 1, 10 * kMebibyte));
    EXPECT_THAT(judgement.complaint(), testing::HasSubstr("near limit"));
}

TEST(Judgement, RejectsAPeakBetweenSamples) {
    Statistics last = statistics(20 * kMebibyte, 10 * kMebibyte);
    last.numbers.near_bytes_peak = 33 * kMebibyte;
    EXPECT_THAT(kept_and_then(last).complaint(), testing::HasSubstr("33.0 MiB"));
}

TEST(Judgement, RemembersAViolationThatIsOver) {
    Judgement judgement = kept_and_then(statistics(33 * kMebibyte, 10 * kMebibyte));
    judgement.add(statistics(20 * kMebibyte, 10 * kMebibyte));
    EXPECT_THAT(judgement.complaint(), testing::HasSubstr("in 1 samples"));
}

TEST(Judgement, RejectsResidentOneByteOver) {
    Judgement judgement = kept_and_then(statistics(32 * kMebibyte, 10 * kMebibyte));
    judgement.add_resident((30 + 10 + 48) * kMebibyte + 1);
    EXPECT_EQ(judgement.complaint(), "") << "judged before the statistics after it are known";
    judgement.add(statistics(32 * kMebibyte, 10 * kMebibyte));
    EXPECT_THAT(judgement.complaint(), testing::HasSubstr("Rss"));
}

TEST(Judgement, TakesTheLargerFarBytesAroundAResidentSample) {
    for (const auto& [before, after] : {std::pair{10, 20}, std::pair{20, 10}}) {
        Judgement judgement(kLimits);
        judgement.add(statistics(kMebibyte, static_cast<std::uint64_t>(before) * kMebibyte));
        judgement.add_resident((30 + 20 + 48) * kMebibyte);
        judgement.add(statistics(kMebibyte, static_cast<std::uint64_t>(after) * kMebibyte));
        EXPECT_EQ(judgement.complaint(), "");
    }
}

TEST(Judgement, RejectsARunThatShowsNothing) {
    EXPECT_THAT(Judgement(kLimits).complaint(), testing::HasSubstr("no statistics"));

    Statistics unmanaged = statistics(kMebibyte, 0);
    unmanaged.engine = "none";
    EXPECT_THAT(kept_and_then(unmanaged).complaint(), testing::HasSubstr("unmanaged"));

    Statistics idle = statistics(kMebibyte, 0);
    idle.numbers.demotions = 0;
    EXPECT_THAT(kept_and_then(idle).complaint(), testing::HasSubstr("nothing was demoted"));

    Judgement no_resident(kLimits);
    no_resident.add(statistics(kMebibyte, kMebibyte));
    EXPECT_THAT(no_resident.complaint(), testing::HasSubstr("no Rss"));
}

TEST(StatisticsParser, ReadsEveryField) {
    Statistics in = statistics(0, 0);
    std::uint64_t number = 0;
#define FIELD(name, unit, sentence) in.numbers.name = ++number;
    PN_STATS_LIST(FIELD)
#undef FIELD
    const Statistics out = parse_statistics(json(in));
#define FIELD(name, unit, sentence) EXPECT_EQ(out.numbers.name, in.numbers.name);
    PN_STATS_LIST(FIELD)
#undef FIELD
    EXPECT_EQ(out.engine, "thread");
}

TEST(StatisticsParser, RefusesWhatItDoesNotKnow) {
    for (const char* text : {"", "{", "[]", "{}", "{\"heap_bytes\": \"many\"}"}) {
        EXPECT_THROW(parse_statistics(text), Failure) << text;
    }
}

TEST(ResidentParser, ReadsRssAlone) {
    EXPECT_EQ(parse_resident_bytes("1000-2000 ---p 0 0:0 0 [rollup]\nRss:      1234 kB\nPss:  5 kB\n"),
              1234u * 1024);
    EXPECT_FALSE(parse_resident_bytes(""));
    EXPECT_FALSE(parse_resident_bytes("x\nPss_Rss:  5 kB\n"));
    EXPECT_FALSE(parse_resident_bytes("x\nRss:  kB\n"));
    EXPECT_GT(resident_bytes(::getpid()).value_or(0), 0u);
}

// The file is replaced as the statistics writer does it; the sampler must see a later version than the first.
TEST(Sampler, JudgesEveryVersionUntilItIsFinished) {
    const TemporaryFolder folder;
    const std::string path = folder.path() + "/statistics.json";
    const auto publish = [&](const Statistics& numbers) {
        std::ofstream(path + ".new") << json(numbers);
        ASSERT_EQ(std::rename((path + ".new").c_str(), path.c_str()), 0);
    };
    Limits ample{1ull << 40};
    Sampler sampler(path, ::getpid(), ample);
    std::atomic<bool> over{false};
    std::thread writer([&] {
        while (!over.load()) publish(statistics(7 * kMebibyte, kMebibyte));
    });
    const Judgement judgement = sampler.finish(kLoadedMachine);
    over.store(true);
    writer.join();
    EXPECT_GE(judgement.samples(), 2u);
    ASSERT_TRUE(judgement.last());
    EXPECT_EQ(judgement.last()->numbers.near_bytes, 7 * kMebibyte);
    EXPECT_EQ(judgement.complaint(), "");
}

TEST(Sampler, ReportsAFileItCannotRead) {
    const TemporaryFolder folder;
    std::ofstream(folder.path() + "/statistics.json") << "nonsense";
    Sampler sampler(folder.path() + "/statistics.json", ::getpid(), kLimits);
    EXPECT_THROW(sampler.finish(kLoadedMachine), Failure);
}

TEST(Sampler, ReportsAFileThatIsNoLongerRewritten) {
    const TemporaryFolder folder;
    std::ofstream(folder.path() + "/statistics.json") << json(statistics(kMebibyte, kMebibyte));
    Sampler sampler(folder.path() + "/statistics.json", ::getpid(), kLimits);
    while (sampler.samples() == 0) std::this_thread::yield();
    EXPECT_THROW(sampler.finish(std::chrono::seconds(0)), Failure);
}

TEST(Sampler, LeavesAMissingFileToTheJudgement) {
    const TemporaryFolder folder;
    Sampler sampler(folder.path() + "/statistics.json", ::getpid(), kLimits);
    EXPECT_THAT(sampler.finish(std::chrono::seconds(0)).complaint(), testing::HasSubstr("no statistics"));
}

TEST(Report, Numbers) {
    EXPECT_EQ(grouped(0), "0");
    EXPECT_EQ(grouped(999), "999");
    EXPECT_EQ(grouped(63666), "63,666");
    EXPECT_EQ(grouped(1234567), "1,234,567");
    EXPECT_EQ(mebibytes(3 * kMebibyte / 2), "1.5 MiB");
    EXPECT_EQ(microseconds(4321), "4.3 us");
    EXPECT_EQ(median({3, 1, 2}), 2);
    EXPECT_EQ(median({4, 1, 3, 2}), 2);
}

}  // namespace
}  // namespace pnode::demo
