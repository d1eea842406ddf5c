// C30 to C33, C36: budgets, closing, accounting.
#include <atomic>
#include <thread>

#include "tests/contract/contract_fixture.h"

namespace pnode::test {
namespace {

TEST(TokenBucketTest, C30_TheBudgetIsKeptWithinATenth) {
    for (const std::uint64_t rate : {100u, 1000u, 65536u, 1000000u}) {
        TokenBucket bucket;
        bucket.set_rate(rate);
        std::uint64_t taken = 0;
        std::uint64_t now_ns = 5'000'000'000;
        bucket.take(now_ns);
        Random random(rate);
        const std::uint64_t end_ns = now_ns + 10'000'000'000;
        while (now_ns < end_ns) {
            now_ns += random.below(200'000);
            while (bucket.take(now_ns)) ++taken;
        }
        EXPECT_GE(taken, rate * 10 * 9 / 10) << rate;
        EXPECT_LE(taken, rate * 10 * 11 / 10) << rate;
    }
    TokenBucket none;
    none.set_rate(0);
    EXPECT_FALSE(none.take(1'000'000'000'000));
}

TEST_F(Contract, C30_FaultsAndClosingAreExemptFromTheBudget) {
    pn_node* const target = node("memory:64M");
    open_heap_on(target);
    constexpr std::uint64_t pages = 512;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    ASSERT_EQ(pn_heap_set_prefetch_limit(heap_, 0), 0);
    for (std::uint64_t page = 0; page < pages; ++page) pn_prefetch(heap_, buffer + page * page_bytes);
    EXPECT_EQ(wrong_pages(buffer, pages / 2, Kind::text, 1), 0u);
    forget(target);
    EXPECT_EQ(pn_node_close(target), 0) << pn_last_message();
    EXPECT_EQ(stats().prefetches, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

bool is_mapped(const std::string& path) {
    std::ifstream maps("/proc/self/maps");
    const std::string all((std::istreambuf_iterator<char>(maps)), {});
    return all.find(path) != std::string::npos;
}

TEST_F(Contract, C31_ClosingIsAllOrNothing) {
    const ShmDevice device(16 * mib);
    pn_node* const target = open_node(device.spec(), PN_NODE_DEFAULT | PN_NODE_DIRECT);
    EXPECT_TRUE(is_mapped(device.path()));
    open_heap_on(target, 4 * mib);
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    void* direct = nullptr;
    ASSERT_EQ(pn_node_alloc(target, 64 * kib, PN_DIRECT | PN_THISNODE, &direct), 0);
    std::memset(direct, 0x42, 64 * kib);

    const auto usable = [&] {
        const std::uint64_t placed = node_stats(target).placements;
        EXPECT_EQ(node_stats(target).gate, 0u);
        EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
        EXPECT_EQ(static_cast<char*>(direct)[64 * kib - 1], 0x42);
        fill_pages(buffer, pages, Kind::text, 1);
        EXPECT_GT(node_stats(target).placements, placed);
    };
    EXPECT_EQ(pn_node_close(target), EBUSY);  // a direct buffer is in use
    EXPECT_NE(std::string(pn_last_message()).find("direct buffers"), std::string::npos);
    usable();
    ASSERT_EQ(pn_pin(heap_, buffer, page_bytes), 0);
    EXPECT_EQ(pn_node_close(target), EBUSY);
    EXPECT_EQ(pn_unpin(heap_, buffer, page_bytes), 0);
    ASSERT_EQ(pn_node_free(target, std::exchange(direct, nullptr)), 0);
    EXPECT_TRUE(eventually([&] {  // the near limit has no room
        EXPECT_EQ(pn_node_close(target), EBUSY);
        return std::string(pn_last_message()).find("near limit") != std::string::npos;
    }));
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, 64 * mib), 0);
    // What the evictor had in hand may have gone there meanwhile: then it is closed again, as the answer
    // says.
    EXPECT_TRUE(eventually([&] { return pn_node_close(target) == 0; })) << pn_last_message();
    EXPECT_FALSE(is_mapped(device.path()));
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    std::ifstream left(device.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(left)), {});
    EXPECT_EQ(bytes.find_first_not_of('\0'), std::string::npos);  // wiped
}

TEST_F(Contract, C32_ClosingHoldsUpNobody) {
    constexpr std::uint64_t pages = 512;
    for (int round = 0; round < 5; ++round) {
        pn_node* const target = open_node("memory:64M");
        open_heap_on(target);
        std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
        std::atomic<bool> done{false};
        std::atomic<std::uint64_t> wrong{0};
        std::atomic<std::uint64_t> rounds{0};
        std::thread reports([&] {
            Random random(1);
            for (int i = 0; i < 2000; ++i) {
                pn_node_set_ratio(target, 1 + random.below(10), 10);
                pn_node_set_pressure(target, static_cast<std::uint32_t>(random.below(1001)));
            }
        });
        std::thread demoter([&] {
            while (!done) pn_demote(heap_, buffer, pages * page_bytes, nullptr);
        });
        std::thread reader([&] {
            for (; !done; ++rounds) wrong += wrong_pages(buffer, pages, Kind::text, 1);
        });
        reports.join();  // "nobody may be using what is closed": the node; the heap goes on being used
        EXPECT_EQ(pn_node_set_ratio(target, 1, 1), 0);
        EXPECT_EQ(pn_node_set_pressure(target, 0), 0);
        const std::uint64_t begun_ns = os::now_ns();
        int error = EBUSY;
        while (error == EBUSY && os::now_ns() - begun_ns < 10'000'000'000) error = pn_node_close(target);
        EXPECT_EQ(error, 0) << pn_last_message();
        const std::uint64_t reached = rounds;
        EXPECT_TRUE(eventually([&] { return rounds > reached + 1; }));
        done = true;
        demoter.join();
        reader.join();
        EXPECT_EQ(wrong, 0u);
        EXPECT_EQ(pn_heap_validate(heap_), nullptr);
        EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
        if (error != 0) {
            EXPECT_EQ(pn_node_close(target), 0);
        }
    }
}

// It cannot succeed: three quarters of the pages are far, nobody touches them, and near has no room for them.
// So the node may go on being told things meanwhile. Each attempt ends, and each leaves everything as it was.
TEST_F(Contract, C32_ClosingInVainHoldsUpNobody) {
    pn_node* const target = node("memory:64M");
    open_heap_on(target);
    constexpr std::uint64_t pages = 1024, near_pages = pages / 4;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer, page_bytes), 0);
    ASSERT_EQ(pn_heap_set_near_limit(heap_, near_pages * page_bytes), 0);
    std::atomic<bool> done{false};
    std::atomic<std::uint64_t> wrong{0};
    std::atomic<std::uint64_t> reported{0};
    std::atomic<std::uint64_t> rounds{0};
    std::thread reports([&] {
        Random random(1);
        for (; !done; ++reported) {
            pn_node_set_ratio(target, 1 + random.below(10), 10);
            pn_node_set_pressure(target, static_cast<std::uint32_t>(random.below(1001)));
        }
    });
    std::thread demoter([&] {
        while (!done) pn_demote(heap_, buffer, pages * page_bytes, nullptr);
    });
    std::thread reader([&] {
        for (; !done; ++rounds) wrong += wrong_pages(buffer, near_pages, Kind::text, 1);
    });
    for (int attempt = 0; attempt < 10; ++attempt) {
        const std::uint64_t begun_ns = os::now_ns();
        EXPECT_EQ(pn_node_close(target), EBUSY);
        EXPECT_LT(os::now_ns() - begun_ns, 10'000'000'000u);
        const std::uint64_t read_before = rounds;
        const std::uint64_t reported_before = reported;
        EXPECT_TRUE(eventually([&] { return rounds > read_before && reported > reported_before; }));
    }
    done = true;
    reports.join();
    demoter.join();
    reader.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(node_stats(target).gate & PN_GATE_TEARDOWN, 0u);
    ASSERT_EQ(pn_node_set_ratio(target, 1, 1), 0);
    ASSERT_EQ(pn_node_set_pressure(target, 0), 0);
    EXPECT_EQ(pn_unpin(heap_, buffer, page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

TEST_F(Contract, C33_LogicalAndPhysicalBytesAreToldAndEachLimitHolds) {
    pn_node* const target = node("memory:64M");
    options_.far_bytes_max = 4 * mib;
    open_heap_on(target, 4 * mib);
    constexpr std::uint64_t pages = 6144;
    std::uint8_t* const buffer = alloc(pages);
    std::atomic<bool> done{false};
    std::thread load([&] {
        for (std::uint64_t round = 0; round < 3; ++round) fill_pages(buffer, pages, Kind::half, round);
        done = true;
    });
    while (!done) {
        const pn_stats_t now = stats();
        EXPECT_LE(now.near_bytes, now.heap_bytes);
        EXPECT_LE(now.limbo_bytes, now.near_bytes + overshoot_bytes_max);
        EXPECT_LE(node_stats(target).blob_bytes, 4 * mib);
        EXPECT_EQ(broken_sum(node_stats(target)), "");
    }
    load.join();
    pn_stats_t rest{};
    EXPECT_TRUE(eventually([&] {  // the evictor may still be at it
        rest = stats();
        return rest.limbo_bytes == 0 && rest.near_bytes + rest.far_logical_bytes <= rest.heap_bytes;
    }));
    EXPECT_GT(rest.far_logical_bytes,
              node_stats(target).blob_bytes);  // logical and physical, each for itself
    EXPECT_LE(node_stats(target).blob_bytes, 4 * mib);
    EXPECT_GT(rest.far_full, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 2), 0u);
}

TEST_F(Contract, C36_MetadataIsEightBytesAPageAndAConstant) {
    if (sanitized) GTEST_SKIP() << "a sanitizer's shadow counts too";
    constexpr std::uint64_t constant_bytes = 8 * mib;  // lanes, stacks, a first slab's tables
    for (const std::uint64_t pages :
         {std::uint64_t{1}, std::uint64_t{1000}, std::uint64_t{1'000'000}, std::uint64_t{100'000'000}}) {
        const std::uint64_t before = status_bytes("RssAnon");
        options_.address_bytes_max = pages * page_bytes + gib;
        options_.near_bytes_max = 0;
        options_.activation_bytes = UINT64_MAX;
        options_.node_spec = "memory:64M";
        open_heap();
        std::uint8_t* const buffer = alloc(pages);
        ASSERT_NE(buffer, nullptr);
        for (std::uint64_t i = 0; i < 16; ++i) buffer[pages * page_bytes / 16 * i] = 1;
        make_far(buffer, 1);
        const std::uint64_t bound = 8 * pages + constant_bytes;
        EXPECT_LE(status_bytes("RssAnon"), before + bound) << pages;
        EXPECT_LE(stats().metadata_bytes, bound) << pages;
        std::printf("%llu pages: %llu KiB resident, %llu told\n", static_cast<unsigned long long>(pages),
                    static_cast<unsigned long long>(
                        (status_bytes("RssAnon") - std::min(before, status_bytes("RssAnon"))) / kib),
                    static_cast<unsigned long long>(stats().metadata_bytes / kib));
        EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    }
}

}  // namespace
}  // namespace pnode::test
