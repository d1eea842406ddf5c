// Who reads far pages one after another gets the next ones before asking; who does not, does not; and no page
// is ever another's.
#include "runtime/read_ahead.h"

#include <cstring>

#include "runtime/handles.h"
#include "runtime/promote.h"
#include "runtime/streams.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

TEST(Streams, ALoneFaultBringsOnePage) {
    Streams streams;
    for (std::uint64_t page : {5u, 500u, 100u, 9000u, 300u, 50u, 550u}) EXPECT_EQ(streams.run_at(page), 1u);
}

TEST(Streams, AnObjectThatLiesAcrossTwoPagesIsNone) {
    Streams streams;
    for (std::uint64_t object : {5u, 500u, 100u, 9000u, 300u}) {
        EXPECT_EQ(streams.run_at(object), 1u);
        EXPECT_EQ(streams.run_at(object + 1), 1u);
    }
}

TEST(Streams, FaultsInARowBringTwiceAsManyEachTime) {
    Streams streams;
    std::uint64_t page = 1000;
    for (const unsigned run : {1u, 1u, 2u, 4u, 8u, 16u, 16u, 16u}) {
        EXPECT_EQ(streams.run_at(page), run);
        page += run;
    }
    EXPECT_EQ(streams.run_at(page + 1), 16u);   // one was near already
    EXPECT_EQ(streams.run_at(page + 100), 1u);  // somewhere else
    EXPECT_EQ(streams.run_at(page + 17), 16u);  // the first goes on
    EXPECT_EQ(streams.run_at(page + 17), 1u);   // the page itself again is no progress
    EXPECT_EQ(streams.run_at(page - 1), 1u);    // nor is one before
}

TEST(Streams, TwoRangesAreReadSideBySide) {
    Streams streams;
    streams.run_at(0);
    streams.run_at(1'000'000);
    unsigned run = 0;
    for (std::uint64_t page = 1; page < 200; page += run) {
        run = std::clamp(2 * run, 1u, Streams::run_max);
        EXPECT_EQ(streams.run_at(page), run);
        EXPECT_EQ(streams.run_at(1'000'000 + page), run);
    }
}

TEST(Streams, TheFirstPagesOfAllAreFaultsLikeOthers) {
    Streams streams;
    EXPECT_EQ(streams.run_at(0), 1u);
    EXPECT_EQ(streams.run_at(1), 1u);
    EXPECT_EQ(streams.run_at(2), 2u);
    EXPECT_EQ(streams.run_at(UINT64_MAX / 4096), 1u);
}

TEST(Streams, WhatOthersBroughtIsPassedOverInFullSwingOnly) {
    Streams streams;
    std::uint64_t page = 1000;
    constexpr unsigned ahead = 64;
    for (const unsigned run : {1u, 1u, 2u, 4u, 8u, 16u}) {
        EXPECT_EQ(streams.run_at(page, 0), run);
        page += run;
    }
    EXPECT_EQ(streams.run_at(page + ahead, ahead), 16u);
    EXPECT_EQ(streams.run_at(page + 3 * ahead, ahead), 1u);
    EXPECT_EQ(streams.run_at(page + 3 * ahead + 10, ahead), 1u);  // a new one
}

// ---- the window of what two bring ahead ----

constexpr FaultKind kind = FaultKind::missing_to_read;

TEST(ReadAheadWindow, IsTakenOffRunByRunAndOnce) {
    pnode::ReadAhead window;
    window.set_processors(2);
    EXPECT_EQ(window.take().pages, 0u);
    EXPECT_TRUE(window.ask(100, kind, 1));
    for (std::uint64_t first = 100; first < 164; first += 16) {
        const pnode::ReadAhead::Run run = window.take();
        EXPECT_EQ(run.first, first);
        EXPECT_EQ(run.pages, 16u);
        EXPECT_EQ(run.kind, kind);
    }
    EXPECT_EQ(window.take().pages, 0u);
}

TEST(ReadAheadWindow, FollowsItsReaderAndGivesNothingTwice) {
    pnode::ReadAhead window;
    window.set_processors(2);
    window.ask(100, kind, 1);
    window.take();
    window.take();
    window.ask(116, FaultKind::missing_to_write, 1);  // the reader got to what was taken first
    std::uint64_t next = 132;
    while (const unsigned pages = window.take().pages) next += pages;
    EXPECT_EQ(next, 116u + pnode::ReadAhead::window_pages);
    window.ask(5000, kind, 1);  // somewhere else
    EXPECT_EQ(window.take().first, 5000u);
    window.ask(100, kind, 1);  // and back
    EXPECT_EQ(window.take().first, 100u);
}

TEST(ReadAheadWindow, WhoWaitsTakesWhatIsBehindItsPage) {
    pnode::ReadAhead window;
    window.set_processors(2);
    window.ask(100, kind, 1);
    EXPECT_EQ(window.take_behind(100).pages, 0u);  // that page itself is to be taken yet
    EXPECT_EQ(window.take_behind(3000).pages, 0u);
    EXPECT_EQ(window.take_behind(2).pages, 0u);
    EXPECT_EQ(window.take_behind(99).first, 100u);
    EXPECT_EQ(window.take_behind(100).first, 116u);
    EXPECT_NE(window.brought_before(120), 0u);
    EXPECT_NE(window.brought_before(132), 0u);
    EXPECT_EQ(window.brought_before(133), 0u);
    EXPECT_EQ(window.brought_before(2), 0u);
}

TEST(ReadAheadWindow, IsNoneWithoutAProcessorToSpare) {
    pnode::ReadAhead one, two, three;
    EXPECT_FALSE(one.ask(100, kind, 1));
    two.set_processors(2);
    EXPECT_TRUE(two.ask(100, kind, 1));
    EXPECT_FALSE(two.ask(900, kind, 2));
    EXPECT_EQ(two.take().pages, 0u);
    three.set_processors(3);
    EXPECT_TRUE(three.ask(100, kind, 1));
    EXPECT_TRUE(three.ask(900, kind, 2));
    EXPECT_FALSE(three.ask(1800, kind, 3));
}

// Each time for twice as long.
TEST(ReadAheadWindow, NobodyAsksForAWhileWhoAnswersLate) {
    pnode::ReadAhead window;
    window.set_processors(2);
    window.ask(100, kind, 1);
    window.answers_late(3000);  // was not waited for because of it
    EXPECT_NE(window.take().pages, 0u);
    for (int time = 0; time < 9; ++time) {
        EXPECT_TRUE(eventually([&] { return window.ask(100, kind, 1); }));
        window.answers_late(99);
    }
    EXPECT_EQ(window.take().pages, 0u);
    EXPECT_FALSE(window.ask(100, kind, 1));
}

class ReadAhead : public HeapTest {};
class CalmReadAhead : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 256;
};

TEST_F(CalmReadAhead, FewFaultsServeWhoReadsInOrder) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    const std::uint64_t faults = stats().faults;
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_TRUE(eventually([&] { return stats().promotions == pages; })) << stats().promotions;
    // 5 faults until runs are of 16, then one a run; a page that is on its way may be faulted on again.
    EXPECT_LE(stats().faults - faults, pages / 4);
    EXPECT_GE(stats().promotions_ahead, pages / 2);
}

TEST_F(CalmReadAhead, WhoJumpsAboutGetsWhatWasAskedFor) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    for (std::uint64_t i = pages; i-- > 0;) {  // backwards, every page: no page is ahead of its time
        EXPECT_TRUE(page_is(buffer + i * page_bytes, Kind::text, 1 + i)) << i;
    }
    EXPECT_TRUE(eventually([&] { return stats().promotions == pages; }));
    EXPECT_EQ(stats().promotions_ahead, 0u);
}

TEST_F(CalmReadAhead, APromotedRangeComesInRuns) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    ASSERT_EQ(pn_promote(heap_, buffer + page_bytes, (pages - 2) * page_bytes), 0);
    EXPECT_EQ(states(buffer, 1)[0], PN_PAGE_FAR);  // not one more than was asked for
    EXPECT_EQ(states(buffer + (pages - 1) * page_bytes, 1)[0], PN_PAGE_FAR);
    expect_near(buffer + page_bytes, pages - 2);
    EXPECT_GT(stats().promotions_ahead, pages / 2);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

// The window is opened by hand: which of the two takes a run is not left to chance.
class CalmTwo : public CalmReadAhead {
  protected:
    static constexpr std::uint64_t from = 10;
    static constexpr unsigned wanted = pnode::ReadAhead::window_pages;

    void open_with_far_pages() {
        open_heap();
        buffer_ = alloc_filled(pages, Kind::text, 1);
        make_far(buffer_, pages);
        heap_->heap.read_ahead.set_processors(2);
        first_ = heap_->heap.page_at(reinterpret_cast<std::uint64_t>(buffer_)) + from;
    }
    void expect_brought() {
        EXPECT_TRUE(eventually([&] { return stats().promotions == wanted; })) << stats().promotions;
        expect_near(buffer_ + from * page_bytes, wanted);
        EXPECT_EQ(stats().promotions_ahead, wanted);
    }
    std::uint8_t* buffer_ = nullptr;
    std::uint64_t first_ = 0;  // of the window, in the heap
};

TEST_F(CalmTwo, TheEvictorBringsWhatAReaderWillWant) {
    open_with_far_pages();
    ASSERT_TRUE(heap_->heap.read_ahead.ask(first_, kind, 1));
    heap_->heap.near.wake_evictor();
    expect_brought();
    EXPECT_EQ(pages_in_state(buffer_, pages, PN_PAGE_FAR), pages - wanted);
    EXPECT_EQ(stats().faults, stats().faults_fresh);  // nobody touched any of them
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 1), 0u);
}

TEST_F(CalmTwo, NothingComesAheadPastTheLimit) {
    open_with_far_pages();
    Heap& heap = heap_->heap;
    heap.near.set_limit(heap.near.pages());
    {
        const LentResolveLane lane(heap.resolve_lanes);
        bring_ahead(heap, {first_, 16, kind}, *lane);
    }
    EXPECT_EQ(stats().promotions, 0u);
    heap.near.set_limit(NearLedger::unlimited);
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 1), 0u);
}

// Its page is in somebody's hands, who takes long; the evictor is not told of the window.
TEST_F(CalmTwo, WhoWaitsForAPageBringsTheNextOnes) {
    open_with_far_pages();
    AtomicPageWord& owned = heap_->heap.word(first_ - 1);
    const PageWord word = owned.load();
    ASSERT_TRUE(owned.make_busy(word));
    heap_->heap.read_ahead.ask(first_, kind, 1);
    std::thread reader([&] { EXPECT_TRUE(page_is(buffer_ + (from - 1) * page_bytes, Kind::text, from)); });
    expect_brought();
    owned.publish(word);
    reader.join();
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 1), 0u);
}

// A run ends at what is not far, and goes on behind it.
TEST_F(CalmReadAhead, GoesAroundWhatIsNearOrGone) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    for (std::uint64_t i = 10; i < pages; i += 23)
        ASSERT_EQ(pn_promote(heap_, buffer + i * page_bytes, page_bytes), 0);
    for (std::uint64_t i = 17; i < pages; i += 29)
        ASSERT_EQ(pn_release(heap_, buffer + i * page_bytes, page_bytes), 0);
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < pages; ++i) {
        const bool released = i >= 17 && (i - 17) % 29 == 0;
        wrong += page_is(buffer + i * page_bytes, released ? Kind::zeros : Kind::text, 1 + i) ? 0 : 1;
    }
    EXPECT_EQ(wrong, 0u);
}

// What is written while it is ahead of its time is written: it leaves changed.
TEST_F(ReadAhead, WritesToPagesThatCameAheadStay) {
    options_.near_bytes_max = 2 * mib;
    open_heap();
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (int round = 0; round < 3; ++round) {
        std::uint64_t wrong = 0;
        for (std::uint64_t i = 0; i < pages; ++i) {
            std::uint8_t* const page = buffer + i * page_bytes;
            wrong += page_is(page, Kind::text, 1 + i + static_cast<std::uint64_t>(round)) ? 0 : 1;
            fill_pages(page, 1, Kind::text, 2 + i + static_cast<std::uint64_t>(round));
        }
        EXPECT_EQ(wrong, 0u) << round;
    }
    EXPECT_LE(stats().near_bytes_peak, 2 * mib + overshoot_bytes_max);
}

// Several threads read the same range at once, and one gives parts of it back: each page is its own, or
// zeros.
TEST_F(ReadAhead, ThreadsShareOneRange) {
    options_.near_bytes_max = 4 * mib;
    open_heap();
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    std::atomic<std::uint64_t> wrong{0};
    std::vector<std::thread> readers;
    for (unsigned reader = 0; reader < 3; ++reader) {
        readers.emplace_back([&, reader] {
            for (std::uint64_t i = 0; i < 2 * pages; ++i) {
                const std::uint64_t page = (i + reader * 8) % pages;
                const std::uint8_t* const at = buffer + page * page_bytes;
                if (!page_is(at, Kind::half, 1 + page) && !page_is(at, Kind::zeros, 0)) ++wrong;
            }
        });
    }
    Random random(7);
    for (int i = 0; i < 200; ++i) {
        const std::uint64_t page = random.below(pages / 2) * 2;
        EXPECT_EQ(pn_release(heap_, buffer + page * page_bytes, page_bytes), 0);
    }
    for (std::thread& reader : readers) reader.join();
    EXPECT_EQ(wrong.load(), 0u);
    EXPECT_LE(stats().near_bytes_peak, 4 * mib + overshoot_bytes_max);
}

}  // namespace
}  // namespace pnode::test
