// C11 to C15: what a node may be used for is said once, and holds.
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

#include "tests/contract/contract_fixture.h"

namespace pnode::test {
namespace {

// Everything a heap does with a node, for a while.
void run_stress(pn_heap* heap, std::uint8_t* buffer, std::uint64_t pages) {
    Random random(3);
    for (int round = 0; round < 200; ++round) {
        std::uint8_t* const at = buffer + random.below(pages - 16) * page_bytes;
        pn_demote(heap, at, 16 * page_bytes, nullptr);
        pn_prefetch(heap, at);
        if (pn_pin(heap, at, 4 * page_bytes) == 0) {
            EXPECT_EQ(pn_unpin(heap, at, 4 * page_bytes), 0);
        }
        fill_page(at, Kind::text, static_cast<std::uint64_t>(round));
        pn_promote(heap, at, 16 * page_bytes);
    }
}

class Services : public Contract {
  protected:
    static constexpr std::uint64_t pages = 512;
    pn_stats_t stress_with(std::uint32_t services) {
        target_ = node("memory:64M", services);
        open_heap_on(target_);
        buffer_ = alloc_filled(pages, Kind::text, 1);
        run_stress(heap_, buffer_, pages);
        return stats();
    }
    pn_node* target_ = nullptr;
    std::uint8_t* buffer_ = nullptr;
};

TEST_F(Services, C11_WithAllServicesAllCountersMove) {
    const pn_stats_t stressed = stress_with(PN_NODE_DEFAULT);
    EXPECT_GT(stressed.demotions, 0u);
    make_far(buffer_, pages);
    EXPECT_EQ(pn_prefetch(heap_, buffer_), 0);
    EXPECT_TRUE(eventually([&] { return stats().prefetches > stressed.prefetches; }));
    ASSERT_EQ(pn_pin(heap_, buffer_, page_bytes), 0);
    EXPECT_EQ(stats().pinned_bytes, page_bytes);
    EXPECT_EQ(pn_unpin(heap_, buffer_, page_bytes), 0);
    EXPECT_EQ(node_stats(target_).heaps, 1u);
}

TEST_F(Services, C11_WithoutDemoteNothingIsPlaced) {
    EXPECT_EQ(stress_with(PN_NODE_DIRECT | PN_NODE_SHARE).demotions, 0u);
    EXPECT_EQ(node_stats(target_).placements, 0u);
    EXPECT_GT(node_stats(target_).refused_service, 0u);
    EXPECT_EQ(node_stats(target_).used_bytes, 0u);
}

TEST_F(Services, C11_WithoutPrefetchNothingIsPrefetched) {
    EXPECT_EQ(stress_with(PN_NODE_DEFAULT & ~PN_NODE_PREFETCH).prefetches, 0u);
    make_far(buffer_, pages);
    EXPECT_EQ(pn_prefetch(heap_, buffer_), EPERM);
    EXPECT_EQ(pages_in_state(buffer_, pages, PN_PAGE_FAR), pages);
}

TEST_F(Services, C11_WithoutPinNothingIsPinned) {
    EXPECT_EQ(stress_with(PN_NODE_DEFAULT & ~PN_NODE_PIN).pinned_bytes, 0u);
    EXPECT_EQ(pn_pin(heap_, buffer_, page_bytes), EPERM);
}

TEST_F(Services, C11_WithoutShareThereIsOneHeap) {
    stress_with(PN_NODE_DEFAULT & ~PN_NODE_SHARE);
    pn_heap* second = nullptr;
    EXPECT_EQ(pn_heap_open(&options_, &second), EBUSY);
    EXPECT_NE(std::string(pn_last_message()).find("SHARE"), std::string::npos);
    EXPECT_EQ(node_stats(target_).heaps, 1u);
}

TEST_F(Services, C11_WithoutDirectThereIsNoDirectBuffer) {
    stress_with(PN_NODE_DEFAULT);
    void* out = nullptr;
    EXPECT_EQ(pn_node_alloc(target_, page_bytes, PN_DIRECT, &out), EPERM);
    EXPECT_EQ(node_stats(target_).direct_buffers, 0u);
}

// The table of pnode.h, once more.
bool is_legal(std::uint32_t mask, bool compresses) {
    const auto has = [mask](std::uint32_t bit) { return (mask & bit) != 0; };
    if (has(PN_NODE_SPILL) || mask > 127) return false;
    if (!has(PN_NODE_DEMOTE) && !has(PN_NODE_DIRECT)) return false;
    if ((has(PN_NODE_RECOMPRESS) || has(PN_NODE_PREFETCH) || has(PN_NODE_PIN)) && !has(PN_NODE_DEMOTE))
        return false;
    return !(has(PN_NODE_DIRECT) && compresses);
}

TEST_F(Contract, C12_AnUnsupportedMaskIsRefusedAndNotAdjusted) {
    for (const bool compresses : {false, true}) {
        for (std::uint32_t mask = 0; mask < 256; ++mask) {
            pn_node_options options;
            pn_node_options_init(&options);
            options.services = mask;
            pn_node* opened = nullptr;
            const int error = pn_node_open(compresses ? "sim:1M" : "memory:1M", &options, &opened);
            EXPECT_EQ(error, is_legal(mask, compresses) ? 0 : EINVAL) << mask << compresses;
            if (error != 0) {
                EXPECT_EQ(opened, nullptr);
                continue;
            }
            EXPECT_EQ(opened->node->services(), mask);
            EXPECT_EQ(pn_node_close(opened), 0);
        }
    }
    pn_node_options options;
    pn_node_options_init(&options);
    options.version = 99;
    pn_node* opened = nullptr;
    EXPECT_EQ(pn_node_open("memory:1M", &options, &opened), EINVAL);
}

std::uint64_t resident_bytes(pn_node* node) {
    struct stat status {};
    EXPECT_EQ(fstat(node->node->region().descriptor(), &status), 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

TEST_F(Services, C13_BytesEnterANodeOnlyByDemotion) {
    pn_node* const target = node("memory:64M");
    open_heap_on(target);
    std::uint8_t* const buffer = alloc(pages);
    for (std::uint64_t round = 0; round < 4; ++round) fill_pages(buffer, pages, Kind::text, round);
    EXPECT_EQ(node_stats(target).placements, 0u);
    EXPECT_EQ(resident_bytes(target), 0u);
    make_far(buffer, 1);
    EXPECT_EQ(node_stats(target).placements, 1u);
    EXPECT_GT(resident_bytes(target), 0u);
}

TEST_F(Services, C14_PinnedPagesAreNotDemoted) {
    open_heap_on(node("memory:64M"));
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    ASSERT_EQ(pn_pin(heap_, buffer, 8 * page_bytes), 0);  // of far pages: promotes
    expect_near(buffer, 8);
    const std::uint64_t refused = stats().refused_pinned;
    EXPECT_EQ(demote(buffer, pages), pages - 8);
    EXPECT_GE(stats().refused_pinned, refused + 8);
    expect_near(buffer, 8);
    ASSERT_EQ(pn_unpin(heap_, buffer, 8 * page_bytes), 0);
    // Locked by the kernel, behind the heap's back (and a sanitizer's, which make nothing of mlock()).
    fill_page(buffer, Kind::text, 77);
    ASSERT_EQ(syscall(SYS_mlock, buffer, page_bytes), 0);
    demote(buffer, 1);
    EXPECT_EQ(pages_in_state(buffer, 1, PN_PAGE_NEAR), 1u);
    ASSERT_EQ(syscall(SYS_munlock, buffer, page_bytes), 0);
    EXPECT_TRUE(page_is(buffer, Kind::text, 77));
    // All or nothing: what does not fit is pinned in no part.
    ASSERT_EQ(pn_heap_set_near_limit(heap_, mib), 0);
    EXPECT_EQ(pn_pin(heap_, buffer, pages * page_bytes), ENOMEM);
    EXPECT_EQ(stats().pinned_bytes, 0u);
}

TEST_F(Contract, C15_SmallObjectsReachANodeOnlyThroughTheirOwnAllocator) {
    pn_node* const target = node("memory:16M", PN_NODE_DEFAULT | PN_NODE_DIRECT);
    std::vector<char*> objects;
    for (int i = 0; i < 100'000; ++i) objects.push_back(new char[24]);
    for (char* object : objects) {
        ASSERT_FALSE(is_in_region(target, object));
        delete[] object;
    }
    EXPECT_EQ(node_stats(target).used_bytes, 0u);
    void* asked_for = nullptr;
    ASSERT_EQ(pn_node_alloc(target, 24, PN_DIRECT | PN_THISNODE, &asked_for), 0);
    EXPECT_TRUE(is_in_region(target, asked_for));
    EXPECT_EQ(pn_node_free(target, asked_for), 0);
}

}  // namespace
}  // namespace pnode::test
