// Where the evictor's hand goes, and what it does where little of what is near may leave.
#include "runtime/hand.h"

#include <random>
#include <vector>

#include "runtime/near_ledger.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

// Pages that leave one by one, in the order in which the hand takes them.
struct Taken {
    std::vector<std::uint64_t> order;
    std::uint64_t looks = 0;
};

// A round is a round.
Taken round_by_round(std::vector<int> skips) {
    Taken taken;
    while (taken.order.size() < skips.size())
        for (std::uint64_t page = 0; page < skips.size(); ++page) {
            ++taken.looks;
            if (skips[page] < 0) continue;
            if (skips[page] == 0) taken.order.push_back(page);
            --skips[page];
        }
    return taken;
}

Taken by_hand(std::vector<int> skips) {
    Hand hand;
    Taken taken;
    while (taken.order.size() < skips.size()) {
        const std::uint64_t page = hand.page;
        ++taken.looks;
        if (skips[page] >= 0) {
            auto skip = static_cast<unsigned>(skips[page]);
            if (!hand.passes_over(&skip)) taken.order.push_back(page);
            skips[page] = taken.order.empty() || taken.order.back() != page ? static_cast<int>(skip) : -1;
        }
        hand.pass_to(page + 1, skips.size());
    }
    return taken;
}

TEST(Hand, TakesWhatRoundsOneByOneWouldInTheirOrder) {
    const unsigned seed = std::random_device()();
    std::mt19937 random(seed);
    for (int heap = 0; heap < 100; ++heap) {
        std::vector<int> skips(1 + random() % 200);
        for (int& skip : skips) skip = static_cast<int>(random() % (skip_max + 1));
        EXPECT_EQ(by_hand(skips).order, round_by_round(skips).order) << "seed " << seed << ", heap " << heap;
    }
}

TEST(Hand, DoesNotGoRoundThirtyTimesForPagesThatAreAllInUse) {
    const std::vector<int> warm(100, skip_max);
    EXPECT_EQ(by_hand(warm).looks, 200u);
    EXPECT_EQ(round_by_round(warm).looks, 100u * (skip_max + 1));
}

TEST(Hand, IsTightWhereARoundSeesLittleThatMayLeave) {
    constexpr std::uint64_t pages = 1000;
    Hand hand;
    const auto round_that_sees = [&](unsigned seen) {
        for (std::uint64_t page = 0; page < pages; ++page) {
            unsigned skip = 0;
            if (page < seen) hand.passes_over(&skip);
            hand.pass_to(page + 1, pages);
        }
        return hand.is_tight();
    };
    EXPECT_FALSE(hand.is_tight());
    EXPECT_FALSE(round_that_sees(4 * batch_pages));
    EXPECT_FALSE(round_that_sees(2 * batch_pages)) << "it stays what it was";
    EXPECT_TRUE(round_that_sees(batch_pages));
    EXPECT_TRUE(round_that_sees(4 * batch_pages - 1));
    EXPECT_FALSE(round_that_sees(4 * batch_pages));
}

TEST(NearLedger, WhereLittleMayLeaveTheMarksAreOne) {
    NearLedger near;
    near.set_limit(1024);
    EXPECT_LT(near.low_pages(), near.high_pages());
    EXPECT_LT(near.high_pages(), near.hard_pages());
    EXPECT_LT(near.hard_pages(), 1024u);
    near.set_tight(true);
    for (const std::uint64_t mark : {near.low_pages(), near.high_pages(), near.hard_pages()})
        EXPECT_EQ(mark, 1024u);
    near.set_limit(2000);
    EXPECT_EQ(near.hard_pages(), 2000u);
    near.set_tight(false);
    EXPECT_LT(near.hard_pages(), 2000u);
}

// Nearly all that may be near does not compress. What is in use fits beside it, and stays; it was taken out
// at each fault, to get below a mark that could not be reached.
class CalmTightLimits : public HeapTest {};

TEST_F(CalmTightLimits, WhatIsInUseStays) {
    constexpr std::uint64_t near_pages = 1024, stubborn_pages = 1000, pages = 3000, hot_pages = 8;
    options_.near_bytes_max = near_pages * page_bytes;
    open_heap();
    std::uint8_t* const stubborn = alloc_filled(stubborn_pages, Kind::random, 1);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    const auto read = [&](std::uint64_t accesses) {
        Random random(1);
        for (std::uint64_t i = 0; i < accesses; ++i) {
            const std::uint64_t page = random.below(random.below(10) != 0 ? hot_pages : pages);
            ASSERT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page));
        }
    };
    constexpr std::uint64_t accesses = sanitized ? 10'000 : 40'000;
    read(accesses);
    const pn_stats_t before = stats();
    read(accesses);
    const pn_stats_t after = stats();
    // One in ten is of any page, and as good as always far.
    EXPECT_LT(after.promotions - before.promotions, accesses / 4);
    // A handler answers first, and makes room then.
    EXPECT_TRUE(eventually([&] { return stats().near_bytes <= near_pages * page_bytes; }));
    EXPECT_EQ(wrong_pages(stubborn, stubborn_pages, Kind::random, 1), 0u);
}

}  // namespace
}  // namespace pnode::test
