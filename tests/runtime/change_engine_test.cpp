// A heap that is served inline changes over to handler threads while its program runs. Not a byte may be
// lost, nobody may wait for ever, and the kernel's own accesses are served from then on.
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <latch>

#include "runtime/process.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

std::string engine_of(pn_heap* heap) {
    char json[4096];
    if (pn_stats_json(heap, json, sizeof json) != 0) return "unknown";
    const std::string text(json);
    const std::string name = "\"engine\": \"";
    const std::size_t at = text.find(name) + name.size();
    return text.substr(at, text.find('"', at) - at);
}

// Does the kernel find the page where the program would?
bool kernel_reads(const std::uint8_t* page) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
    PageImage seen = {};
    const bool passed = write(ends[1], page, page_bytes) == static_cast<ssize_t>(page_bytes) &&
                        read(ends[0], seen.data(), page_bytes) == static_cast<ssize_t>(page_bytes);
    close(ends[0]);
    close(ends[1]);
    return passed && std::memcmp(seen.data(), page, page_bytes) == 0;
}

class InlineChange : public HeapTest {
  protected:
    void SetUp() override {
        HeapTest::SetUp();
        if (!userfaultfd_allowed(false))
            GTEST_SKIP() << "needs a userfaultfd: sysctl vm.unprivileged_userfaultfd=1";
        options_.engine = PN_ENGINE_INLINE;
    }
    bool change() {
        return changes_in_the_end([] { return serve_by_handler_threads(nullptr); });
    }
};
using InlineCalmChange = InlineChange;

TEST_F(InlineChange, EveryByteIsThere) {
    constexpr std::uint64_t pages = 3000;  // 24 pieces
    options_.near_bytes_max = 4 * mib;
    open_heap();
    std::uint8_t* buffers[every_kind.size()];
    for (std::size_t kind = 0; kind < every_kind.size(); ++kind)
        buffers[kind] = alloc_filled(pages, every_kind[kind], 100 * kind);
    std::uint8_t* const fresh = alloc(pages);
    const std::uint8_t first = fresh[5 * page_bytes];
    EXPECT_EQ(first, 0);
    EXPECT_EQ(engine_of(heap_), "inline");
    ASSERT_TRUE(change());
    EXPECT_EQ(engine_of(heap_), "thread");
    EXPECT_TRUE(change());
    for (std::size_t kind = 0; kind < every_kind.size(); ++kind) {
        EXPECT_EQ(wrong_pages(buffers[kind], pages, every_kind[kind], 100 * kind), 0u) << kind;
        make_far(buffers[1], 1);
        EXPECT_TRUE(kernel_reads(buffers[1]));
    }
    EXPECT_EQ(wrong_pages(fresh, pages, Kind::zeros, 0), 0u);
}

// The near limit holds while it changes, but for one piece of 512 KiB.
TEST_F(InlineCalmChange, TheNearLimitHolds) {
    constexpr std::uint64_t pages = 8192;
    options_.near_bytes_max = 8 * mib;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_TRUE(change());
    EXPECT_LE(stats().near_bytes_peak, 8 * mib + 512 * kib + overshoot_bytes_max);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_LE(stats().near_bytes_peak, 8 * mib + 512 * kib + overshoot_bytes_max);
}

// Each state that a page can be in survives: far, near with its blob and not written to, pinned, fresh.
TEST_F(InlineCalmChange, WhatAPageIsItStays) {
    constexpr std::uint64_t pages = 64;
    options_.near_bytes_max = 64 * mib;  // for kept blobs' share of it
    open_heap();
    std::uint8_t* const buffer = alloc_filled(4 * pages, Kind::text, 1);
    make_far(buffer, 4 * pages);
    std::uint8_t* const read_only = buffer + pages * page_bytes;
    EXPECT_EQ(wrong_pages(read_only, pages, Kind::text, 1 + pages), 0u);
    ASSERT_EQ(pn_pin(heap_, buffer + 2 * pages * page_bytes, pages * page_bytes), 0);
    ASSERT_EQ(pn_release(heap_, buffer + 3 * pages * page_bytes, pages * page_bytes), 0);
    ASSERT_TRUE(change());
    // Written to where the kernel vouched for it that nobody had.
    fill_pages(read_only, pages, Kind::text, 500);
    EXPECT_EQ(demote(buffer + 2 * pages * page_bytes, pages), 0u);
    make_far(read_only, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(wrong_pages(read_only, pages, Kind::text, 500), 0u);
    EXPECT_EQ(wrong_pages(read_only + pages * page_bytes, pages, Kind::text, 1 + 2 * pages), 0u);
    EXPECT_EQ(wrong_pages(read_only + 2 * pages * page_bytes, pages, Kind::zeros, 0), 0u);
    EXPECT_EQ(pn_unpin(heap_, buffer + 2 * pages * page_bytes, pages * page_bytes), 0);
}

// Threads read and write their own pages, touch fresh ones, allocate, free and demote all the while.
TEST_F(InlineChange, WhileThreadsFaultAndDemote) {
    constexpr std::uint64_t pages = 700;
    constexpr unsigned threads_count = 4;
    options_.near_bytes_max = 4 * mib;
    for (std::uint64_t heap = 0; heap < 4; ++heap) {
        open_heap();
        std::atomic<bool> done = false;
        std::atomic<std::uint64_t> wrong = 0;
        std::atomic<std::uint64_t> rounds[threads_count] = {};
        std::vector<std::thread> threads;
        for (unsigned t = 0; t < threads_count; ++t) {
            threads.emplace_back([&, t] {
                std::uint8_t* const own = alloc_filled(pages, Kind::text, 1000 * t);
                for (std::uint64_t round = 1; !done; ++round) {
                    wrong += wrong_pages(own, pages, Kind::text, 1000 * t + round - 1);
                    fill_pages(own, pages, Kind::text, 1000 * t + round);
                    pn_demote(heap_, own, pages / 2 * page_bytes, nullptr);
                    std::uint8_t* const passing = alloc(pages / 8);
                    wrong += wrong_pages(passing, pages / 8, Kind::zeros, 0);
                    wrong += pn_buffer_free(heap_, passing, pages / 8 * page_bytes) != 0;
                    ++rounds[t];
                }
            });
        }
        const auto all_went_on = [&] {
            for (unsigned t = 0; t < threads_count; ++t) {
                const std::uint64_t before = rounds[t];
                EXPECT_TRUE(eventually([&] { return rounds[t] > before + 1; }));
            }
        };
        all_went_on();
        EXPECT_TRUE(change());
        all_went_on();
        done = true;
        for (std::thread& thread : threads) thread.join();
        EXPECT_EQ(wrong, 0u);
        EXPECT_EQ(engine_of(heap_), "thread");
        TearDown();
        heap_ = nullptr;
    }
}

std::atomic<unsigned> looks_left{0};
bool everybody_after_some_looks() noexcept {
    if (looks_left == 0) return true;
    if (looks_left != ~0U) --looks_left;
    return false;
}

TEST_F(InlineChange, WaitsForEverybodyAWhileAndIsAskedAgain) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(64, Kind::text, 1);
    make_far(buffer, 64);
    looks_left = ~0U;
    EXPECT_FALSE(serve_by_handler_threads(everybody_after_some_looks));
    EXPECT_EQ(engine_of(heap_), "inline");
    EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 1), 0u);
    looks_left = 3;
    EXPECT_TRUE(changes_in_the_end([] { return serve_by_handler_threads(everybody_after_some_looks); }));
    EXPECT_EQ(looks_left, 0u);
    EXPECT_EQ(engine_of(heap_), "thread");
    EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 1), 0u);
}

// By calls of the API alone, so that no signal comes before the change: ThreadSanitizer watches this one too.
class CalmChange : public InlineChange {};

TEST_F(CalmChange, WhileOthersPromoteAndDemote) {
    constexpr std::uint64_t pages = 600;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(4 * pages, Kind::text, 1);
    std::atomic<bool> done = false;
    std::atomic<int> error = 0;
    std::atomic<std::uint64_t> rounds = 0;
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            std::uint8_t* const own = buffer + t * pages * page_bytes;
            while (!done) {
                for (const int result : {pn_demote(heap_, own, pages * page_bytes, nullptr),
                                         pn_promote(heap_, own, pages * page_bytes),
                                         pn_pin(heap_, own, page_bytes), pn_unpin(heap_, own, page_bytes)})
                    if (result != 0) error = result;
                stats();
                ++rounds;
            }
        });
    }
    const auto go_on = [&] {
        const std::uint64_t before = rounds;
        EXPECT_TRUE(eventually([&] { return rounds > before + 8; }));
    };
    go_on();
    EXPECT_TRUE(change());
    go_on();
    done = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(error, 0);
    EXPECT_EQ(engine_of(heap_), "thread");
    EXPECT_EQ(wrong_pages(buffer, 4 * pages, Kind::text, 1), 0u);
}

}  // namespace
}  // namespace pnode::test
