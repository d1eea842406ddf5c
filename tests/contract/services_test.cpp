// C11 to C15: what a node may be used for is said once, and holds.
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <new>
#include <string_view>

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
    EXPECT_TRUE(eventually([&] {  // a wish may be dropped
        EXPECT_EQ(pn_prefetch(heap_, buffer_), 0);
        return stats().prefetches > stressed.prefetches;
    }));
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

// Two heaps, alike but for the service of their nodes: when the one's blobs were made smaller, the other's
// were left as they are.
TEST_F(Services, C11_WithoutRecompressBlobsStayAsTheyAre) {
    constexpr std::uint64_t many = 2048;  // enough to train a dictionary on
    options_.codec = "auto:100:6";
    pn_heap_options permitted = options_;
    stress_with(PN_NODE_DEFAULT & ~PN_NODE_RECOMPRESS);
    std::uint8_t* const left = alloc_filled(many, Kind::text, 1);
    make_far(left, many);

    permitted.node = node("memory:64M");
    permitted.node_spec = nullptr;
    pn_heap* other = nullptr;
    ASSERT_EQ(pn_heap_open(&permitted, &other), 0) << pn_last_message();
    void* made_smaller = nullptr;
    ASSERT_EQ(pn_buffer_alloc(other, many * page_bytes, 0, &made_smaller), 0);
    fill_pages(static_cast<std::uint8_t*>(made_smaller), many, Kind::text, 1);
    EXPECT_TRUE(eventually([&] {
        pn_demote(other, made_smaller, many * page_bytes, nullptr);
        return stats_of(other).recompressed >= many / 2;
    }));
    EXPECT_EQ(stats().recompressed, 0u);
    EXPECT_EQ(stats().dictionaries_trained, 0u);
    EXPECT_EQ(wrong_pages(left, many, Kind::text, 1), 0u);
    EXPECT_EQ(wrong_pages(static_cast<std::uint8_t*>(made_smaller), many, Kind::text, 1), 0u);
    EXPECT_EQ(pn_heap_close(other), 0);
}

// There is no such service, so no node that could have it: nothing of a node is ever written elsewhere.
TEST_F(Contract, C11_SpillIsRefusedAndNotIgnored) {
    pn_node_options options;
    pn_node_options_init(&options);
    EXPECT_EQ(options.services & PN_NODE_SPILL, 0u);
    options.services |= PN_NODE_SPILL;
    pn_node* opened = nullptr;
    EXPECT_EQ(pn_node_open("memory:1M", &options, &opened), EINVAL);
    EXPECT_EQ(opened, nullptr);
    EXPECT_NE(std::string(pn_last_message()).find("SPILL"), std::string::npos) << pn_last_message();
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

// Changes when something is stored in the region: what is resident of memory that is given when it is
// touched; of memory that was taken when the node was opened, the bytes themselves.
std::uint64_t trace_of_stores(pn_node* node) {
    const cxl::Region& region = node->node->region();
    struct stat status {};
    EXPECT_EQ(fstat(region.descriptor(), &status), 0);
    if (std::string(region.kind()) == "memory") return static_cast<std::uint64_t>(status.st_blocks);
    const std::string_view bytes(reinterpret_cast<const char*>(region.bytes()), region.size_bytes());
    return std::hash<std::string_view>{}(bytes);
}

TEST_F(Services, C13_BytesEnterANodeOnlyByDemotion) {
    pn_node* const target = node("memory:8M");
    open_heap_on(target);
    const std::uint64_t untouched = trace_of_stores(target);
    std::uint8_t* const buffer = alloc(pages);
    for (std::uint64_t round = 0; round < 4; ++round) fill_pages(buffer, pages, Kind::text, round);
    EXPECT_EQ(node_stats(target).placements, 0u);
    EXPECT_EQ(trace_of_stores(target), untouched);
    make_far(buffer, 1);
    EXPECT_EQ(node_stats(target).placements, 1u);
    EXPECT_NE(trace_of_stores(target), untouched);
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

// A ring of the kernel's, with one buffer registered: its pages are pinned for DMA as long as the ring is
// open.
class RegisteredBuffer {
  public:
    RegisteredBuffer(void* address, std::size_t bytes) {
        io_uring_params parameters{};
        ring_ = static_cast<int>(syscall(SYS_io_uring_setup, 1, &parameters));
        if (ring_ < 0) {
            error_ = errno;
            return;
        }
        const iovec buffer{address, bytes};
        if (syscall(SYS_io_uring_register, ring_, IORING_REGISTER_BUFFERS, &buffer, 1) != 0) error_ = errno;
    }
    ~RegisteredBuffer() { release(); }
    RegisteredBuffer(const RegisteredBuffer&) = delete;
    RegisteredBuffer& operator=(const RegisteredBuffer&) = delete;
    int error() const { return error_; }
    void release() {
        if (ring_ >= 0) close(ring_);
        ring_ = -1;
    }

  private:
    int ring_ = -1;
    int error_ = 0;
};

TEST_F(Services, C14_PagesPinnedForDmaAreNotDemoted) {
    open_heap_on(node("memory:64M"));
    if (!inside().uffd.has(UFFD_FEATURE_MOVE))
        GTEST_SKIP() << "without UFFDIO_MOVE nothing tells that a page is pinned for DMA";
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    RegisteredBuffer registered(buffer, 8 * page_bytes);  // of far pages: the kernel brings them near
    if (registered.error() == ENOSYS || registered.error() == EPERM)
        GTEST_SKIP() << "no io_uring here: " << std::strerror(registered.error());
    ASSERT_EQ(registered.error(), 0) << std::strerror(registered.error());
    expect_near(buffer, 8);
    const std::uint64_t refused = stats().refused_pinned;
    EXPECT_EQ(demote(buffer, 8), 0u);
    EXPECT_GE(stats().refused_pinned, refused + 8);
    expect_near(buffer, 8);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    registered.release();
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
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
