// C23 to C29, C35: what happens to the bytes.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>
#include <thread>

#include "tests/contract/contract_fixture.h"

namespace pnode::test {
namespace {

TEST_F(Contract, C23_AWritePromotesAndThereIsOneWinner) {
    open_heap_on(node("memory:16M"));
    constexpr unsigned writers = 64;
    for (std::uint64_t round = 0; round < 20; ++round) {
        std::uint8_t* const page = alloc_filled(1, Kind::text, round);
        make_far(page, 1);
        const std::uint64_t before = stats().promotions;
        std::atomic<unsigned> waiting{0};
        std::vector<std::thread> threads;
        for (unsigned t = 0; t < writers; ++t) {
            threads.emplace_back([&, t] {
                waiting.fetch_add(1);
                while (waiting.load() < writers) std::this_thread::yield();
                page[t * 61] = static_cast<std::uint8_t>(t + 1);
            });
        }
        for (std::thread& thread : threads) thread.join();
        PageImage expected = page_image(Kind::text, round);
        for (unsigned t = 0; t < writers; ++t) expected[t * 61] = static_cast<std::uint8_t>(t + 1);
        EXPECT_EQ(std::memcmp(page, expected.data(), page_bytes), 0);
        EXPECT_TRUE(eventually([&] { return stats().promotions == before + 1; }));
    }
}

std::uint64_t cpu_ns() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

// Nothing is to be done, and that costs next to nothing, once it is seen: asleep for 300 ms, the process uses
// less than half of them.
bool comes_to_rest() {
    return eventually([] {
        const std::uint64_t before_ns = cpu_ns();
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        return cpu_ns() - before_ns < 150'000'000u;
    });
}

TEST_F(Contract, C24_NearExhaustedIsNoLivelock) {
    open_heap_on(node("memory:64M"), 4 * mib);
    constexpr std::uint64_t pages = 4 * mib / page_bytes;
    std::uint8_t* const held = alloc_filled(pages, Kind::text, 1);
    std::uint8_t* const wanted = alloc_filled(pages, Kind::text, 5000);
    ASSERT_EQ(pn_pin(heap_, held, (pages - 4) * page_bytes), 0);
    EXPECT_EQ(wrong_pages(wanted, pages, Kind::text, 5000), 0u);  // goes on, page by page
    EXPECT_TRUE(comes_to_rest());
    ASSERT_EQ(pn_unpin(heap_, held, (pages - 4) * page_bytes), 0);
    EXPECT_EQ(wrong_pages(held, pages, Kind::text, 1), 0u);
    EXPECT_TRUE(eventually([&] { return stats().near_bytes <= 4 * mib; }));
}

// The raw bytes of pages, wherever in the region they may be.
TEST_F(Contract, C25_FreedSlotsAreScrubbed) {
    pn_node* const target = node("memory:16M");
    options_.codec = "device";
    open_heap_on(target);
    constexpr std::uint64_t pages = 512;
    constexpr char canary[] = "the canary sings in this very page";
    std::uint8_t* const buffer = alloc_filled(pages, Kind::random, 1);
    for (std::uint64_t page = 0; page < pages; ++page)
        std::memcpy(buffer + page * page_bytes + 7 * page % 4000, canary, sizeof canary);
    make_far(buffer, pages);
    const cxl::Region& region = target->node->region();
    const auto sings = [&] {
        const auto* const bytes = reinterpret_cast<const char*>(region.bytes());
        return std::search(bytes, bytes + region.size_bytes(), canary, canary + sizeof canary) !=
               bytes + region.size_bytes();
    };
    EXPECT_TRUE(sings());
    ASSERT_EQ(pn_release(heap_, buffer, pages / 2 * page_bytes), 0);
    ASSERT_EQ(pn_buffer_free(heap_, buffer + pages / 2 * page_bytes, pages / 2 * page_bytes), 0);
    EXPECT_FALSE(sings());
    EXPECT_EQ(node_stats(target).blobs, 0u);
}

TEST_F(Contract, C26_ARefusedTrimIsRetriedEightTimesThenZeroed) {
    pn_node* const target = node("sim:16M,physical=8M");
    cxl::SimulatedDevice& device = *target->node->region().device();
    options_.codec = "device";
    open_heap_on(target);
    constexpr std::uint64_t pages = 256;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    for (const unsigned refusals : {3u, 100'000u}) {
        fill_pages(buffer, pages, Kind::half, refusals);
        make_far(buffer, pages);
        device.behaviour.trim_refusals = refusals;
        const std::uint64_t retries = device.trim_retries();
        ASSERT_EQ(pn_release(heap_, buffer, pages * page_bytes), 0);
        {
            const os::SignalsBlocked signals;
            target->node->store().trim();
        }
        EXPECT_TRUE(eventually([&] { return node_stats(target).used_bytes == 0; }));
        EXPECT_GT(device.trim_retries(), retries);
        EXPECT_EQ(device.used_bytes(), 0u);
        device.behaviour.trim_refusals = 0;
    }
    const auto zero = std::count(device.bytes(), device.bytes() + device.size_bytes(), std::byte{0});
    EXPECT_EQ(static_cast<std::size_t>(zero), device.size_bytes());
}

// One by one; those that are not lost are right.
std::uint64_t promote_and_count_lost(pn_heap* heap, std::uint8_t* buffer, std::uint64_t pages, Kind kind,
                                     std::uint64_t seed) {
    std::uint64_t lost = 0;
    for (std::uint64_t page = 0; page < pages; ++page) {
        std::uint8_t* const at = buffer + page * page_bytes;
        const int error = pn_promote(heap, at, page_bytes);
        lost += error == EIO ? 1 : 0;
        if (error == 0) {
            EXPECT_TRUE(page_is(at, kind, seed + page)) << page;
        }
    }
    return lost;
}

TEST_F(Contract, C27_AFlippedBitIsToldAndNeverShown) {
    loses_pages_ = true;
    pn_node* const target = node("memory:16M");
    open_heap_on(target);
    constexpr std::uint64_t header = 24;
    constexpr std::uint64_t samples = header + 64;
    std::uint8_t* const buffer = alloc_filled(2 * samples, Kind::text, 1);
    make_far(buffer, 2 * samples);
    std::uint64_t poisoned = 0;
    for (std::uint64_t sample = samples; sample-- > 0;) {  // backwards, so that nothing comes near unasked
        std::uint8_t* const page = buffer + 2 * sample * page_bytes;  // its neighbour stays as it is
        const PageWord word = inside().word(inside().page_at(reinterpret_cast<std::uint64_t>(page))).load();
        ASSERT_EQ(word.state(), PageState::far);
        std::byte* const blob = target->node->store().bytes(word.place()).data();
        const std::size_t at = sample < header ? sample : header + (sample - header) * 13;
        blob[at] ^= std::byte{1} << (sample % 8);
        EXPECT_EQ(pn_promote(heap_, page, page_bytes), EIO) << at;
        EXPECT_EQ(states(page, 1)[0], PN_PAGE_POISONED) << at;
        EXPECT_EQ(stats().poisoned, ++poisoned);
        EXPECT_TRUE(page_is(page + page_bytes, Kind::text, 1 + 2 * sample + 1));
    }
    // The slots are never used again.
    EXPECT_EQ(pn_release(heap_, buffer, 2 * samples * page_bytes), 0);
    EXPECT_EQ(node_stats(target).blobs, poisoned);
}

// Memory that goes away under its mapping: the pages on it are lost, the process and all others are not.
TEST_F(Contract, C27_BadMemoryCostsThePagesOnIt) {
    if (thread_sanitized) GTEST_SKIP() << "ThreadSanitizer lets no handler jump out of bad memory";
    loses_pages_ = true;
    const ShmDevice device(4 * mib);
    pn_node* const target = open_node(device.spec());
    open_heap_on(target);
    constexpr std::uint64_t pages = 1024;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    make_far(buffer, pages);
    ASSERT_EQ(truncate(device.path().c_str(), 1 * mib), 0);
    const std::uint64_t lost = promote_and_count_lost(heap_, buffer, pages, Kind::half, 1);
    EXPECT_GT(lost, 0u);
    EXPECT_LT(lost, pages);
    EXPECT_EQ(stats().poisoned, lost);
    EXPECT_EQ(node_stats(target).bad_ranges, lost);
    // What is good goes on being used; what is bad is not.
    ASSERT_EQ(pn_release(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    std::uint8_t* const again = alloc_filled(pages, Kind::half, 5000);
    pn_demote(heap_, again, pages * page_bytes, nullptr);
    EXPECT_EQ(stats().poisoned, lost);
    for (std::uint64_t page = 0; page < pages; ++page) {
        if (pn_promote(heap_, again + page * page_bytes, page_bytes) == 0) {
            ASSERT_TRUE(page_is(again + page * page_bytes, Kind::half, 5000 + page));
        }
    }
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    EXPECT_EQ(pn_node_close(target), 0);
}

// The kernel itself takes a page for broken, as it does when the hardware says so. It stays so until the
// machine starts again: only where PNODE_TEST_NODES says that the machine is there for it.
int break_page(const void* address) {
    const auto page = reinterpret_cast<std::uintptr_t>(address) / page_bytes * page_bytes;
    return madvise(reinterpret_cast<void*>(page), page_bytes, MADV_HWPOISON) == 0 ? 0 : errno;
}

bool may_break_pages() {
    const char* const where = std::getenv("PNODE_TEST_NODES");
    return where != nullptr && std::string(where).starts_with("numa:");
}

TEST_F(Contract, C27_MemoryThatTheKernelFindsBadCostsThePagesOnIt) {
    if (!may_break_pages())
        GTEST_SKIP() << "PNODE_TEST_NODES names no NUMA node, such as numa:2, to break a page of";
    loses_pages_ = true;
    pn_node* const target = node("memory:16M");
    open_heap_on(target);
    constexpr std::uint64_t pages = 256;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    make_far(buffer, pages);
    const PageWord word = inside().word(inside().page_at(reinterpret_cast<std::uint64_t>(buffer))).load();
    int refused = 0;
    cxl::BadRange bad;
    // Later kernels raise the signal at once, in who breaks it.
    (void)cxl::guarded([&] { refused = break_page(target->node->store().bytes(word.place()).data()); }, &bad);
    if (refused != 0) GTEST_SKIP() << "no MADV_HWPOISON here: " << std::strerror(refused);
    const std::uint64_t lost = promote_and_count_lost(heap_, buffer, pages, Kind::half, 1);
    EXPECT_EQ(states(buffer, 1)[0], PN_PAGE_POISONED);
    EXPECT_GE(lost, 1u);
    EXPECT_LE(lost, 4u);  // blobs of half a page, of which the page holds parts
    EXPECT_EQ(stats().poisoned, lost);
    EXPECT_EQ(pn_release(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    std::uint8_t* const again = alloc_filled(4 * pages, Kind::half, 5000);
    make_far(again, 4 * pages);
    EXPECT_EQ(wrong_pages(again, 4 * pages, Kind::half, 5000), 0u);
    EXPECT_EQ(stats().poisoned, lost);
}

bool ended_by_sigbus(int status) {
    if (sanitized && WIFEXITED(status)) return WEXITSTATUS(status) != 0;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

// In both engines: the inline one finds it inside its own SIGBUS handler.
TEST_F(Contract, C27_BadMemoryIsToldToWhoeverTouchesThePage) {
    for (const std::uint32_t engine : {PN_ENGINE_THREAD, PN_ENGINE_INLINE}) {
        EXPECT_EXIT(
            {
                const ShmDevice device(4 * mib);
                options_.engine = engine;
                open_heap_on(open_node(device.spec()));
                std::uint8_t* const buffer = alloc_filled(16, Kind::half, 1);
                make_far(buffer, 16);
                EXPECT_EQ(truncate(device.path().c_str(), 0), 0);
                unlink(device.path().c_str());
                const volatile std::uint8_t* const byte = buffer + 3 * page_bytes;
                std::printf("%d\n", *byte);
            },
            ended_by_sigbus, "is lost: its blob at 0x[0-9a-f]+ of the node: its memory is bad");
    }
}

// DRAM goes bad too, with no node to blame: the program is told as without pnode, and no engine tries to
// serve it.
TEST_F(Contract, C27_BadMemoryUnderANearPageIsTheProgramsToSee) {
    if (!may_break_pages())
        GTEST_SKIP()
            << "PNODE_TEST_NODES names no NUMA node, such as numa:2: no page of this machine is broken";
    for (const std::uint32_t engine : {PN_ENGINE_THREAD, PN_ENGINE_INLINE}) {
        EXPECT_EXIT(
            {
                options_.engine = engine;
                open_heap();
                std::uint8_t* const buffer = alloc_filled(16, Kind::half, 1);
                make_far(buffer, 16);
                EXPECT_EQ(wrong_pages(buffer, 16, Kind::half, 1), 0u);
                if (break_page(buffer + 3 * page_bytes) != 0) _exit(1);
                const volatile std::uint8_t* const byte = buffer + 3 * page_bytes;
                std::printf("%d\n", *byte);
            },
            ::testing::KilledBySignal(SIGBUS), "");
    }
}

TEST_F(Contract, C28_AFarBlobNeverGoesToASecondNode) {
    pn_node* const first = node("memory:64M");
    pn_node* const second = node("memory:64M");
    open_heap_on(first);
    pn_heap* other = nullptr;
    pn_heap_options others = options_;
    others.node = second;
    ASSERT_EQ(pn_heap_open(&others, &other), 0);
    constexpr std::uint64_t pages = 512;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    ASSERT_EQ(pn_node_set_ratio(first, 1, 256), 0);  // most of it has to leave: to DRAM
    EXPECT_TRUE(eventually([&] { return node_stats(first).gate == 0; }));
    EXPECT_EQ(node_stats(second).placements, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(node_stats(second).used_bytes, 0u);
    EXPECT_EQ(pn_heap_close(other), 0);
}

// The other way out of the first blob's size: a stronger codec, in the same node.
TEST_F(Contract, C28_WhatIsMadeSmallerStaysOnItsNode) {
    pn_node* const first = node("memory:64M");
    pn_node* const second = node("memory:64M");
    options_.codec = "auto:100:6";
    open_heap_on(first);
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    EXPECT_TRUE(eventually([&] { return stats().recompressed >= pages / 2; }));
    EXPECT_EQ(node_stats(second).placements, 0u);
    EXPECT_EQ(node_stats(second).used_bytes, 0u);
    const std::byte* const begin = first->node->region().bytes();
    const std::byte* const end = begin + first->node->region().size_bytes();
    const std::uint64_t first_page = inside().page_at(reinterpret_cast<std::uint64_t>(buffer));
    {
        const Inside nobody_remakes(inside().operations);
        for (std::uint64_t page = first_page; page < first_page + pages; ++page) {
            const PageWord word = inside().word(page).load();
            if (word.state() != PageState::far) continue;
            const auto blob = inside().far.bytes(word);
            ASSERT_TRUE(blob.data() >= begin && blob.data() + blob.size() <= end) << page;
        }
    }
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Contract, C29_HintsMayBeGarbage) {
    pn_node* const target = node("memory:64M");
    open_heap_on(target, 4 * mib);
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    Random random(29);
    for (int i = 0; i < 1'000'000; ++i) {
        const std::uint64_t draw = random.next();
        const std::uint64_t near_heap =
            reinterpret_cast<std::uint64_t>(buffer) + draw % (4 * pages * page_bytes);
        const void* const address = reinterpret_cast<const void*>(draw % 3 == 0 ? draw : near_heap);
        ASSERT_EQ(pn_prefetch(heap_, address), 0);
    }
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_LE(stats().near_bytes_peak, 4 * mib + overshoot_bytes_max);
    EXPECT_EQ(pn_prefetch(nullptr, buffer), EINVAL);
}

TEST_F(Contract, C35_IncompressiblePagesStayAndAreNotTriedAgain) {
    pn_node* const target = node("memory:64M");
    open_heap_on(target, 4 * mib);
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::random, 1);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::random, 1), 0u);
    EXPECT_EQ(node_stats(target).blobs, 0u);
    EXPECT_EQ(node_stats(target).placements, 0u);
    const std::uint64_t tried = stats().incompressible;
    EXPECT_GT(tried, 0u);
    // Each is passed over for 31 sweeps: reading all of it ten times more tries at most a few of them again.
    for (int round = 0; round < 10; ++round) EXPECT_EQ(wrong_pages(buffer, pages, Kind::random, 1), 0u);
    EXPECT_LE(stats().incompressible, tried + 10 * pages);
    EXPECT_TRUE(comes_to_rest());
}

}  // namespace
}  // namespace pnode::test
