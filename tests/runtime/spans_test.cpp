// Written pages that leave many at once, write-protected by spans (PN_HEAP_PINNED_IO). Every byte is
// compared.
#include <sys/mman.h>

#include <atomic>

#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class CalmSpans : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 512;

    void open(bool pins_io) {
        options_.flags |= PN_HEAP_PINNED_IO;
        if (!pins_io) leave_by_moves();
        open_heap();
        buffer_ = alloc_filled(pages, Kind::text, 1);
    }
    std::uint64_t left_in_place() {
        const pn_stats_t before = stats();
        make_far(buffer_, pages);
        const pn_stats_t after = stats();
        EXPECT_EQ(after.demotions - before.demotions, pages);
        return after.evictions_in_place - before.evictions_in_place;
    }
    std::uint8_t* buffer_ = nullptr;
};

TEST_F(CalmSpans, WrittenPagesLeaveFromWhereTheyAre) {
    open(true);
    for (int round = 0; round < 3; ++round) {
        EXPECT_EQ(left_in_place(), pages);
        EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 1), 0u);
        fill_pages(buffer_, pages, Kind::text, 1);
    }
}

TEST_F(CalmSpans, WithoutThePromiseTheyAreMoved) {
    open(false);
    EXPECT_EQ(left_in_place(), pages_are_moved() ? 0u : pages);
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 1), 0u);
}

// By a bare madvise(2), as a program may; with handler threads a copy of it would wait for one, and that for
// us.
TEST_F(CalmSpans, WhatWasDroppedUnseenReadsAsZeros) {
    open(true);
    make_far(buffer_, pages);
    fill_pages(buffer_, pages, Kind::text, 1);
    ASSERT_EQ(madvise(buffer_ + 64 * page_bytes, page_bytes, MADV_DONTNEED), 0);
    make_far(buffer_, pages);
    EXPECT_TRUE(page_is(buffer_ + 64 * page_bytes, Kind::zeros, 0));
    fill_page(buffer_ + 64 * page_bytes, Kind::text, 1 + 64);
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 1), 0u);
}

TEST_F(CalmSpans, APinnedPageStays) {
    open(true);
    ASSERT_EQ(pn_pin(heap_, buffer_ + 100 * page_bytes, page_bytes), 0);
    EXPECT_TRUE(eventually([&] { return demote(buffer_, pages) == pages - 1; }));
    EXPECT_EQ(states(buffer_ + 100 * page_bytes, 1)[0], PN_PAGE_NEAR);
    ASSERT_EQ(pn_unpin(heap_, buffer_ + 100 * page_bytes, page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 1), 0u);
}

class Spans : public HeapTest {};

// More than may stay, and each thread adds to words of its own on any page, with others' beside them.
TEST_F(Spans, NoWriteIsLostWhilePagesLeave) {
    constexpr std::uint64_t pages = 2048, threads = 4;
    const std::uint64_t rounds = sanitized ? 2'000 : 20'000;
    options_.flags |= PN_HEAP_PINNED_IO;
    options_.near_bytes_max = pages / 2 * page_bytes;
    open_heap();
    auto* const words = reinterpret_cast<std::uint64_t*>(alloc(pages));
    constexpr std::uint64_t words_a_page = page_bytes / sizeof(std::uint64_t);
    std::vector<std::vector<std::uint64_t>> added(threads, std::vector<std::uint64_t>(pages));
    std::atomic<std::uint64_t> wrong = 0;
    std::vector<std::thread> all;
    for (std::uint64_t t = 0; t < threads; ++t) {
        all.emplace_back([&, t] {
            Random random(1 + t);
            for (std::uint64_t i = 0; i < rounds; ++i) {
                const std::uint64_t page = random.below(pages);
                std::uint64_t& word = words[page * words_a_page + t];
                if (word != added[t][page]) ++wrong;
                if (random.below(2) == 0) word = ++added[t][page];
            }
        });
    }
    for (std::thread& thread : all) thread.join();
    for (std::uint64_t t = 0; t < threads; ++t) {
        for (std::uint64_t page = 0; page < pages; ++page)
            wrong += words[page * words_a_page + t] == added[t][page] ? 0 : 1;
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(stats().demotions, 0u);
}

}  // namespace
}  // namespace pnode::test
