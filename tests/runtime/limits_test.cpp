// The near limit, the far limit and what the figures say about both.
#include <fstream>

#include "runtime/eviction_clock.h"
#include "runtime/keep_rule.h"
#include "runtime/near_map.h"
#include "tests/runtime/heap_fixture.h"
#include "tests/shm_device.h"

namespace pnode::test {
namespace {

class Limits : public HeapTest {
  protected:
    void open_with(std::uint64_t near_bytes, const char* node_spec = "memory:256M") {
        options_.near_bytes_max = near_bytes;
        options_.node_spec = node_spec;
        open_heap();
    }
};
class CalmLimits : public Limits {};

// What is near is found, however far between: the hand does not walk over all of the addresses.
TEST_F(Limits, HoldWhereLittleOfMuchIsUsed) {
    options_.address_bytes_max = 64 * gib;
    options_.near_bytes_max = 4 * mib;
    open_heap();
    constexpr std::uint64_t areas = 16, area_pages = 512;
    void* buffer = nullptr;
    ASSERT_EQ(pn_buffer_alloc(heap_, 64 * gib, 0, &buffer), 0);
    const auto area = [&](std::uint64_t index) {
        return static_cast<std::uint8_t*>(buffer) + index * (64 * gib / areas);
    };
    for (std::uint64_t index = 0; index < areas; ++index)
        fill_pages(area(index), area_pages, Kind::text, index);
    EXPECT_LE(stats().near_bytes_peak, 4 * mib + overshoot_bytes_max);
    std::uint64_t wrong = 0;
    for (std::uint64_t index = areas; index-- > 0;)
        wrong += wrong_pages(area(index), area_pages, Kind::text, index);
    EXPECT_EQ(wrong, 0u);
    EXPECT_LE(stats().near_bytes_peak, 4 * mib + overshoot_bytes_max);
}

TEST_F(Limits, LoadOfFourTimesTheNearLimitStaysBelowIt) {
    constexpr std::uint64_t near = 4 * mib;
    constexpr std::uint64_t pages = 4 * near / page_bytes;
    open_with(near);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    const pn_stats_t after = stats();
    EXPECT_LE(after.near_bytes_peak, near + overshoot_bytes_max);
    EXPECT_GE(after.far_logical_bytes, 4 * near - near - overshoot_bytes_max);
    EXPECT_GT(after.promotions, 0u);
}

TEST_F(Limits, RandomReadsAndWritesStayBelowTheNearLimit) {
    constexpr std::uint64_t near = 2 * mib;
    constexpr std::uint64_t pages = 4 * near / page_bytes;
    open_with(near);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 0);
    std::vector<std::uint64_t> seeds(pages);
    for (std::uint64_t i = 0; i < pages; ++i) seeds[i] = i;
    Random random(1);
    for (std::uint64_t i = 0; i < 4 * pages; ++i) {
        const std::uint64_t page = random.below(pages);
        ASSERT_TRUE(page_is(buffer + page * page_bytes, Kind::text, seeds[page])) << page;
        if (random.below(4) == 0) {
            seeds[page] = pages + i;
            fill_page(buffer + page * page_bytes, Kind::text, seeds[page]);
        }
    }
    EXPECT_LE(stats().near_bytes_peak, near + overshoot_bytes_max);
}

TEST_F(Limits, ManyThreadsStayBelowTheNearLimit) {
    constexpr std::uint64_t near = 4 * mib;
    constexpr std::uint64_t pages = near / page_bytes;
    open_with(near);
    std::uint64_t wrong[4] = {};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
        std::uint8_t* const buffer = alloc(pages);
        threads.emplace_back([buffer, t, &wrong] {
            fill_pages(buffer, pages, Kind::text, t * pages);
            wrong[t] = wrong_pages(buffer, pages, Kind::text, t * pages);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::uint64_t each : wrong) EXPECT_EQ(each, 0u);
    EXPECT_LE(stats().near_bytes_peak, near + overshoot_bytes_max);
}

TEST_F(Limits, LoweringTheLimitDemotesBeforeItReturns) {
    constexpr std::uint64_t pages = 8 * mib / page_bytes;
    open_with(16 * mib);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, 2 * mib), 0);
    EXPECT_LE(stats().near_bytes, 2 * mib + overshoot_bytes_max);
    EXPECT_GE(stats().far_logical_bytes, 4 * mib);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, 16 * mib), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Limits, ALimitGivenLaterHolds) {
    constexpr std::uint64_t pages = 8 * mib / page_bytes;
    open_with(0);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, 2 * mib), 0);
    EXPECT_LE(stats().near_bytes, 2 * mib + overshoot_bytes_max);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    std::uint8_t* const later = alloc_filled(pages, Kind::text, 5000);
    EXPECT_EQ(wrong_pages(later, pages, Kind::text, 5000), 0u);
    EXPECT_LE(stats().near_bytes, 2 * mib + overshoot_bytes_max);
}

TEST_F(Limits, LoweringGoesOnlyAsFarAsPinsAllow) {
    constexpr std::uint64_t pages = 6 * mib / page_bytes;
    open_with(8 * mib);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer, 4 * mib), 0);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, mib), 0);
    EXPECT_EQ(stats().pinned_bytes, 4 * mib);
    expect_near(buffer, 4 * mib / page_bytes);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);  // goes on although the limit cannot be met
    ASSERT_EQ(pn_unpin(heap_, buffer, 4 * mib), 0);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, mib), 0);
    EXPECT_LE(stats().near_bytes, mib + overshoot_bytes_max);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Limits, IncompressiblePagesAreKeptWhateverTheLimit) {
    constexpr std::uint64_t pages = 4 * mib / page_bytes;
    open_with(mib);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::random, 1);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::random, 1), 0u);
    EXPECT_GT(stats().incompressible, 0u);
}

TEST_F(Limits, FarFullGoesOnNear) {
    constexpr std::uint64_t pages = 24 * mib / page_bytes;
    open_with(2 * mib, "memory:4M");
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 1), 0u);
    const pn_stats_t after = stats();
    EXPECT_GT(after.far_full, 0u);
    EXPECT_GT(after.far_logical_bytes, 0u);
    EXPECT_LE(after.far_bytes, 4 * mib);
    EXPECT_EQ(pn_demote(heap_, buffer, pages * page_bytes, nullptr), ENOSPC);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 1), 0u);

    // Room given back is used again.
    ASSERT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
    std::uint8_t* const next = alloc_filled(mib / page_bytes, Kind::half, 7000);
    make_far(next, mib / page_bytes);
    EXPECT_EQ(wrong_pages(next, mib / page_bytes, Kind::half, 7000), 0u);
}

TEST_F(Limits, FarLimitBelowTheNodesSizeHolds) {
    constexpr std::uint64_t pages = 16 * mib / page_bytes;
    options_.far_bytes_max = 4 * mib;
    open_with(2 * mib);
    EXPECT_EQ(stats().far_bytes_max, 4 * mib);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    EXPECT_LE(stats().far_bytes, 4 * mib);
    EXPECT_GT(stats().far_full, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 1), 0u);
}

// What far takes, near has not: in step, and back again.
TEST_F(Limits, ATotalIsSharedByNearAndFar) {
    constexpr std::uint64_t total = 12 * mib, pages = 16 * mib / page_bytes;
    options_.total_bytes_max = total;
    open_with(0);
    EXPECT_EQ(stats().near_bytes_max, total);  // nothing is far
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    Random random(1);
    for (std::uint64_t i = 0; i < 2 * pages; ++i) {
        const std::uint64_t page = random.below(pages);
        ASSERT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page)) << page;
        if (i % 64 != 0) continue;
        const pn_stats_t now = stats();
        ASSERT_LE(now.near_bytes + now.far_bytes, total + overshoot_bytes_max);
        ASSERT_LE(now.near_bytes_max, total - total / 16);
    }
    const pn_stats_t full = stats();
    EXPECT_EQ(full.total_bytes_max, total);
    EXPECT_GT(full.promotions, 0u);
    // Half of it goes: what far gives back is near's again.
    ASSERT_EQ(pn_release(heap_, buffer, pages / 2 * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer + pages / 2 * page_bytes, pages / 2, Kind::text, 1 + pages / 2), 0u);
    EXPECT_TRUE(eventually([&] { return stats().near_bytes_max > full.near_bytes_max; }));
}

TEST_F(Limits, ATotalCanBeSetAndEndedAndANearLimitHoldsBesideIt) {
    constexpr std::uint64_t pages = 8 * mib / page_bytes;
    open_with(6 * mib);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (const std::uint64_t bad : {std::uint64_t{1}, mib - 1, std::uint64_t{1} << 63})
        EXPECT_EQ(pn_heap_set_total_limit(heap_, bad), EINVAL) << bad;
    EXPECT_EQ(pn_heap_set_total_limit(nullptr, 4 * mib), EINVAL);
    EXPECT_EQ(stats().near_bytes_max, 6 * mib);
    ASSERT_EQ(pn_heap_set_total_limit(heap_, 5 * mib), 0);
    pn_stats_t now = stats();
    EXPECT_LT(now.near_bytes_max, 5 * mib);
    EXPECT_LE(now.near_bytes + now.far_bytes, 5 * mib + overshoot_bytes_max);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, mib), 0);
    EXPECT_EQ(stats().near_bytes_max, mib);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, 6 * mib), 0);
    EXPECT_LT(stats().near_bytes_max, 5 * mib);
    ASSERT_EQ(pn_heap_set_total_limit(heap_, 0), 0);
    EXPECT_EQ(stats().near_bytes_max, 6 * mib);
    EXPECT_EQ(stats().total_bytes_max, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

// A thousand pages near and as many far, blobs of half a page, and kept ones of so many KiB.
MemoryUse use_with_kept(std::uint64_t kept_kib, bool has_total) {
    return {.near_pages_max = 1000,
            .far_pages = 1000,
            .blob_bytes = (2000 + kept_kib) * 1024,
            .kept_bytes = kept_kib * 1024,
            .has_total = has_total};
}

TEST(KeepRule, PagesOfHighLevelsUseLessOfWhatMayBeKept) {
    EXPECT_EQ(use_with_kept(600, false).far_blob_bytes(), 2000u * 1024);
    // Half of what is saved: 1000 KiB, of which a page of the second level may use two thirds.
    EXPECT_TRUE(KeepRule::keeps(use_with_kept(990, false), 0));
    EXPECT_FALSE(KeepRule::keeps(use_with_kept(1010, false), 0));
    EXPECT_FALSE(KeepRule::keeps(use_with_kept(990, false), 1));
    EXPECT_TRUE(KeepRule::keeps(use_with_kept(660, false), 2));
    EXPECT_FALSE(KeepRule::keeps(use_with_kept(680, false), 2));
    EXPECT_TRUE(KeepRule::keeps(use_with_kept(390, false), 6));
    EXPECT_FALSE(KeepRule::keeps(use_with_kept(410, false), 6));
    // An eighth of the near pages, where hardly anything is far.
    MemoryUse use = use_with_kept(490, false);
    use.far_pages = 10;
    EXPECT_TRUE(KeepRule::keeps(use, 0));
    EXPECT_FALSE(KeepRule::keeps(use, 1));
}

TEST(KeepRule, UnderATotalAQuarterOfWhatFarPagesTakeIsKept) {
    EXPECT_TRUE(KeepRule::keeps(use_with_kept(490, true), 0));
    EXPECT_FALSE(KeepRule::keeps(use_with_kept(510, true), 0));
    EXPECT_TRUE(KeepRule::keeps(use_with_kept(240, true), 4));
    EXPECT_FALSE(KeepRule::keeps(use_with_kept(260, true), 4));
    EXPECT_FALSE(KeepRule::is_waste_in_total(use_with_kept(990, true)));
    EXPECT_TRUE(KeepRule::is_waste_in_total(use_with_kept(1010, true)));
    // Without them 500 KiB of blobs would be 250 pages more: each blob is half of what its page takes near.
    EXPECT_EQ(KeepRule::near_pages_if_none_kept(use_with_kept(500, true), 700), 700u + 250);
    EXPECT_EQ(KeepRule::near_pages_if_none_kept(use_with_kept(0, true), 700), 700u);
    const MemoryUse nothing_far = {
        .near_pages_max = 1000, .far_pages = 0, .blob_bytes = 0, .kept_bytes = 0, .has_total = true};
    EXPECT_FALSE(KeepRule::keeps(nothing_far, 0));
    EXPECT_FALSE(KeepRule::is_waste_in_total(nothing_far));
    EXPECT_EQ(KeepRule::near_pages_if_none_kept(nothing_far, 1000), 1000u);
}

TEST(EvictionClock, WhatIsPastIsNotCountedAnewWhenTheLimitChanges) {
    EvictionClock clock;
    for (int batch = 0; batch < 1000; ++batch) clock.count(8, 8000);
    EXPECT_EQ(clock.epoch(), 8u);
    EXPECT_FALSE(clock.count(8, 800));
    EXPECT_FALSE(clock.count(8, 16000));
    EXPECT_EQ(clock.epoch(), 8u);
    EXPECT_TRUE(clock.count(200, 800));
    EXPECT_EQ(clock.epoch(), 10u) << "216 pages are two epochs and a rest";
    clock.advance(17);
    EXPECT_EQ(clock.epoch(), 27u);
    const std::uint64_t before = clock.now();
    clock.count(1, 800);
    EXPECT_NE(clock.now(), before);
    EXPECT_EQ(clock.epoch(), 27u);
    EXPECT_TRUE(clock.count(16, 0)) << "an epoch is 32 pages at least";
    for (int epochs = 0; epochs < 100; ++epochs) clock.count(32, 0);
    EXPECT_EQ(clock.epoch(), 128u);
}

TEST(NearMap, GroupsWithNothingToTakeArePassedOverUntilTheyAreLookedAtAgain) {
    constexpr std::uint64_t group = NearMap::group_pages, pages = 200 * group;
    NearMap map;
    ASSERT_EQ(map.init(pages), 0);
    EXPECT_EQ(map.next_takeable(0, pages), pages);
    map.mark(3 * group + 5);
    map.mark(100 * group);
    EXPECT_EQ(map.next_takeable(0, pages), 3 * group);
    EXPECT_EQ(map.next_takeable(3 * group + 6, pages), 3 * group + 6);
    const auto always = [](NearMap::Group group_is) { return [group_is] { return group_is; }; };
    // One that is not idle after all, as it turns out when the bit is clear, stays to be taken.
    unsigned looks = 0;
    EXPECT_FALSE(map.clear_if_idle(
        3 * group, [&] { return ++looks == 1 ? NearMap::Group::idle : NearMap::Group::takeable; }));
    EXPECT_TRUE(map.may_be_takeable(3 * group));
    EXPECT_FALSE(map.clear_if_idle(
        3 * group, [&] { return ++looks == 3 ? NearMap::Group::away : NearMap::Group::idle; }));
    EXPECT_TRUE(map.may_be_near(3 * group));
    EXPECT_FALSE(map.clear_if_idle(3 * group, always(NearMap::Group::takeable)));
    EXPECT_TRUE(map.clear_if_idle(3 * group, always(NearMap::Group::idle)));
    EXPECT_EQ(map.next_takeable(0, pages), 100 * group);
    EXPECT_TRUE(map.may_be_near(3 * group));
    map.mark(3 * group);  // another page of it
    EXPECT_TRUE(map.may_be_takeable(3 * group));
    EXPECT_TRUE(map.clear_if_idle(3 * group, always(NearMap::Group::idle)));
    EXPECT_TRUE(map.clear_if_idle(100 * group, always(NearMap::Group::away)));
    map.look_again();
    EXPECT_EQ(map.next_takeable(0, pages), 3 * group);
    EXPECT_EQ(map.next_takeable(4 * group, pages), pages) << "nothing of it is near";
}

// Two thirds of the reads go to a quarter of the pages. Those stay near, without blobs; the rest come and go
// with theirs: few bytes save most of the compressing.
TEST_F(CalmLimits, UnderATotalFewKeptBlobsSaveMostOfTheCompressing) {
    constexpr std::uint64_t pages = 8 * mib / page_bytes;
    options_.total_bytes_max = 5 * mib + mib / 2;
    open_with(0);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    Random random(5);
    const auto read_at_random = [&](std::uint64_t reads) {
        for (std::uint64_t i = 0; i < reads; ++i) {
            const std::uint64_t page = random.below(random.below(3) == 0 ? pages : pages / 4);
            ASSERT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page)) << page;
        }
    };
    read_at_random(10 * pages);
    const pn_stats_t before = stats();
    read_at_random(10 * pages);
    const pn_stats_t after = stats();
    EXPECT_GT(after.demotions_unchanged - before.demotions_unchanged,
              (after.demotions - before.demotions) * 7 / 10);
    EXPECT_GT(after.kept_blob_bytes, 0u);
    EXPECT_LT(after.kept_blob_bytes, (after.far_bytes - after.kept_blob_bytes) / 3);
}

// Where nearly all fits, blobs of near pages would take the place of near pages: those that were kept go.
TEST_F(CalmLimits, ATotalThatNearlySufficesIsForNearPages) {
    constexpr std::uint64_t pages = 8 * mib / page_bytes;
    options_.total_bytes_max = 4 * mib;
    open_with(0);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    const auto read_at_random = [&](std::uint64_t reads) {
        Random random(reads);
        for (std::uint64_t i = 0; i < reads; ++i) {
            const std::uint64_t page = random.below(pages);
            ASSERT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page)) << page;
        }
    };
    read_at_random(4 * pages);
    const pn_stats_t tight = stats();
    EXPECT_GT(tight.kept_blob_bytes, tight.near_bytes / 32);
    ASSERT_EQ(pn_heap_set_total_limit(heap_, 7 * mib + mib / 2), 0);
    read_at_random(8 * pages);
    const pn_stats_t loose = stats();
    EXPECT_LE(loose.kept_blob_bytes, loose.near_bytes / 16 + mib / 8);
    EXPECT_GT(loose.near_bytes, 5 * mib + mib / 2);
}

// Neither waits for ever nor loses a byte: a sixteenth stays near, and what will not go far as well.
TEST_F(Limits, ATotalThatTheDataDoNotFitIsPassed) {
    constexpr std::uint64_t pages = 8 * mib / page_bytes;
    options_.total_bytes_max = 2 * mib;
    open_with(0);
    std::uint8_t* const half = alloc_filled(pages, Kind::half, 1);
    std::uint8_t* const random = alloc_filled(pages / 4, Kind::random, 5000);
    EXPECT_EQ(stats().near_bytes_max, mib);
    EXPECT_EQ(wrong_pages(half, pages, Kind::half, 1), 0u);
    EXPECT_EQ(wrong_pages(random, pages / 4, Kind::random, 5000), 0u);
}

TEST_F(Limits, StrictRefusesWhatCannotBeKept) {
    options_.flags = PN_HEAP_STRICT;
    open_with(2 * mib, "memory:4M");
    std::vector<std::uint8_t*> buffers;
    void* buffer = nullptr;
    int error = 0;
    while (buffers.size() < 32 && (error = pn_buffer_alloc(heap_, mib, 0, &buffer)) == 0) {
        buffers.push_back(static_cast<std::uint8_t*>(buffer));
        fill_pages(buffers.back(), mib / page_bytes, Kind::random, buffers.size() * 1000);
    }
    EXPECT_EQ(error, ENOMEM);
    EXPECT_GE(buffers.size(), 1u);
    EXPECT_LE(stats().near_bytes_peak, 2 * mib + overshoot_bytes_max);
    for (std::size_t i = 0; i < buffers.size(); ++i) {
        EXPECT_EQ(wrong_pages(buffers[i], mib / page_bytes, Kind::random, (i + 1) * 1000), 0u);
        EXPECT_EQ(pn_buffer_free(heap_, buffers[i], mib), 0);
    }
    EXPECT_EQ(pn_buffer_alloc(heap_, mib, 0, &buffer), 0);
}

TEST_F(Limits, TwoHeapsShareANode) {
    ASSERT_EQ(pn_node_open("memory:64M", nullptr, &options_.node), 0) << pn_last_message();
    pn_heap* other = nullptr;
    options_.codec = "zstd";
    ASSERT_EQ(pn_heap_open(&options_, &other), 0) << pn_last_message();
    options_.codec = "lz4";
    options_.near_bytes_max = 2 * mib;
    open_heap();
    constexpr std::uint64_t pages = 4 * mib / page_bytes;
    void* others = nullptr;
    ASSERT_EQ(pn_buffer_alloc(other, pages * page_bytes, 0, &others), 0);
    auto* const others_pages = static_cast<std::uint8_t*>(others);
    fill_pages(others_pages, pages, Kind::text, 5000);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(pn_demote(other, others, pages * page_bytes, nullptr), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(wrong_pages(others_pages, pages / 2, Kind::text, 5000), 0u);
    EXPECT_EQ(pn_node_close(options_.node), EBUSY);  // the near limit has no room

    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    EXPECT_EQ(wrong_pages(others_pages, pages, Kind::text, 5000), 0u);
    EXPECT_EQ(pn_heap_validate(other), nullptr);
    EXPECT_EQ(pn_heap_close(other), 0);
    EXPECT_EQ(pn_node_close(options_.node), 0);
}

TEST_F(Limits, ReadOnlyChurnCompressesOnce) {
    constexpr std::uint64_t pages = 8 * mib / page_bytes;
    open_with(4 * mib);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (int round = 0; round < 4; ++round) ASSERT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    const pn_stats_t after = stats();
    EXPECT_GT(after.demotions_unchanged, after.demotions / 8);  // kept blobs are bounded too
}

// Who reads all in turn finds no page near: whatever has a blob leaves without compressing.
TEST_F(CalmLimits, AllBlobsAreKeptWhereFarMemoryIsApart) {
    constexpr std::uint64_t pages = 8 * mib / page_bytes;
    const ShmDevice device(64 * mib);
    open_with(4 * mib, device.spec().c_str());
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    const auto read_all = [&] { ASSERT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u); };
    for (int round = 0; round < 4; ++round) read_all();
    const pn_stats_t before = stats();
    for (int round = 0; round < 4; ++round) read_all();
    const pn_stats_t after = stats();
    EXPECT_GT(after.demotions, before.demotions + pages);
    EXPECT_EQ(after.demotions_unchanged - before.demotions_unchanged, after.demotions - before.demotions);
}

// Most of what may be near does not compress, so the hand comes round often: what it found not to compress is
// not compressed in vain at each turn.
TEST_F(CalmLimits, WhatDoesNotCompressIsSeldomTriedAgain) {
    constexpr std::uint64_t near = 4 * mib;
    constexpr std::uint64_t stubborn_pages = near / page_bytes * 15 / 16, pages = 4 * near / page_bytes;
    open_with(near);
    std::uint8_t* const stubborn = alloc_filled(stubborn_pages, Kind::random, 1);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    Random random(1);
    for (std::uint64_t i = 0; i < (sanitized ? 4 : 16) * pages; ++i) {
        const std::uint64_t page = random.below(pages);
        ASSERT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page));
    }
    const pn_stats_t after = stats();
    EXPECT_LT(after.incompressible, after.demotions / 2 + 4 * stubborn_pages);
    EXPECT_EQ(wrong_pages(stubborn, stubborn_pages, Kind::random, 1), 0u);
    // What was written to since may compress. It is found by who takes pages out, however long that takes
    // him.
    fill_pages(stubborn, stubborn_pages, Kind::text, 7);
    const auto has_gone = [&] {
        return pages_in_state(stubborn, stubborn_pages, PN_PAGE_FAR) > stubborn_pages / 2;
    };
    for (int pass = 0; pass < 64 && !has_gone(); ++pass)
        EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_TRUE(has_gone());
    EXPECT_EQ(wrong_pages(stubborn, stubborn_pages, Kind::text, 7), 0u);
}

// Blobs of one size; every second one goes, so that each slab is half empty. As pages come and go some slabs
// fill, the others empty and are given back.
TEST_F(CalmLimits, RoomThatBlobsLeftIsGivenBackWherePagesComeAndGo) {
    constexpr std::uint64_t pages = 16 * mib / page_bytes;
    open_with(4 * mib);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 1), 0u);
    for (std::uint64_t page = 0; page < pages; page += 2)
        ASSERT_EQ(pn_release(heap_, buffer + page * page_bytes, page_bytes), 0);
    const std::uint64_t left_pages = pages / 2;
    Random random(1);
    EXPECT_TRUE(eventually([&] {
        for (int i = 0; i < 4096; ++i) {
            std::uint8_t* const page = buffer + (2 * random.below(left_pages) + 1) * page_bytes;
            page[0] ^= 0xff;  // so that it is compressed again
            page[0] ^= 0xff;
        }
        const pn_stats_t now = stats();
        return now.far_bytes < now.far_logical_bytes * 2 / 3 + now.kept_blob_bytes;
    })) << stats().far_bytes
        << " for " << stats().far_logical_bytes;
    std::uint64_t wrong = 0;
    for (std::uint64_t page = 1; page < pages; page += 2)
        wrong += page_is(buffer + page * page_bytes, Kind::half, 1 + page) ? 0 : 1;
    EXPECT_EQ(wrong, 0u);
}

TEST_F(CalmLimits, FiguresAddUp) {
    open_with(0);
    constexpr std::uint64_t pages = 256;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(stats().heap_bytes, pages * page_bytes);
    EXPECT_EQ(stats().near_bytes, pages * page_bytes);
    make_far(buffer, 100);
    EXPECT_EQ(stats().near_bytes, 156 * page_bytes);
    EXPECT_EQ(stats().far_logical_bytes, 100 * page_bytes);
    EXPECT_EQ(stats().limbo_bytes, 0u);
    ASSERT_EQ(pn_promote(heap_, buffer, 50 * page_bytes), 0);
    EXPECT_EQ(stats().near_bytes, 206 * page_bytes);
    EXPECT_EQ(stats().far_logical_bytes, 50 * page_bytes);
    EXPECT_EQ(stats().promotions, 50u);
    EXPECT_EQ(stats().demotions, 100u);
    ASSERT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(stats().heap_bytes, 0u);
    EXPECT_EQ(stats().near_bytes, 0u);
    EXPECT_EQ(stats().far_logical_bytes, 0u);
    EXPECT_EQ(stats().near_bytes_peak, pages * page_bytes);
}

std::uint64_t rss_bytes() {
    std::ifstream rollup("/proc/self/smaps_rollup");
    for (std::string line; std::getline(rollup, line);) {
        if (line.starts_with("Rss:")) return std::strtoull(line.c_str() + 4, nullptr, 10) * kib;
    }
    return 0;
}

TEST_F(Limits, ResidentMemoryIsNearAndFarAndLittleElse) {
    if (sanitized) GTEST_SKIP() << "shadow memory is resident too";
    constexpr std::uint64_t near = 8 * mib;
    constexpr std::uint64_t pages = 64 * mib / page_bytes;
    open_with(near);
    std::uint8_t* const buffer = alloc(pages);
    for (std::uint64_t i = 0; i < pages; i += 1024) {
        fill_pages(buffer + i * page_bytes, 1024, Kind::text, i);
        const std::uint64_t rss = rss_bytes();
        ASSERT_GT(rss, 0u);
        ASSERT_LE(rss, near + stats().far_bytes + 48 * mib);
    }
    for (std::uint64_t i = 0; i < pages; i += 7) {
        ASSERT_TRUE(page_is(buffer + i * page_bytes, Kind::text, i)) << i;
    }
    EXPECT_LE(rss_bytes(), near + stats().far_bytes + 48 * mib);
}

}  // namespace
}  // namespace pnode::test
