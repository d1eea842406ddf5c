// Packing where no codec recompresses: the evictor gives back what few blobs held, and no page ever reads
// another byte, whoever comes and goes meanwhile.
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/handles.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class Packing : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 4096;

    // Of eight pages in a row one stays, and with it most of its slab.
    void release_most(std::uint8_t* buffer) {
        for (std::uint64_t page = 0; page < pages; ++page)
            if (page % 8 != 3) {
                ASSERT_EQ(pn_release(heap_, buffer + page * page_bytes, page_bytes), 0);
            }
    }
    void expect_what_stayed(const std::uint8_t* buffer) {
        std::uint64_t wrong = 0;
        for (std::uint64_t page = 3; page < pages; page += 8)
            wrong += page_is(buffer + page * page_bytes, Kind::text, 1 + page) ? 0 : 1;
        EXPECT_EQ(wrong, 0u);
        EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    }
    std::uint64_t far_bytes() { return stats().far_bytes; }
};

TEST_F(Packing, SlabsThatColdBlobsHoldAreGivenBack) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    const std::uint64_t before = far_bytes();
    release_most(buffer);
    EXPECT_TRUE(eventually([&] { return far_bytes() < before / 4; })) << before << ' ' << far_bytes();
    EXPECT_GT(stats().blobs_moved, 0u);
    EXPECT_GT(stats().packing_cpu_ns, 0u);
    EXPECT_EQ(stats().recompression_cpu_ns, 0u);
    expect_what_stayed(buffer);
}

// Near pages' kept blobs are in the way as far ones' are.
TEST_F(Packing, KeptBlobsMoveAndStillTellTheTruth) {
    options_.far_bytes_max = 256 * mib;  // so that all may be kept
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    ASSERT_EQ(pn_promote(heap_, buffer, pages * page_bytes), 0);
    const std::uint64_t before = far_bytes();
    release_most(buffer);
    EXPECT_TRUE(eventually([&] {
        heap_->heap.near.wake_evictor();  // as evictions do
        return far_bytes() < before / 4;
    })) << before
        << ' ' << far_bytes();
    expect_what_stayed(buffer);
    const std::uint64_t unchanged = stats().demotions_unchanged;
    make_far(buffer, pages);
    EXPECT_GT(stats().demotions_unchanged, unchanged);
    expect_what_stayed(buffer);
}

// What is borrowed may hold others' blobs, which we cannot move.
TEST_F(Packing, ABorrowedNodeIsLeftAsItIs) {
    pn_node* node = nullptr;
    ASSERT_EQ(pn_node_open("memory:64M", nullptr, &node), 0);
    options_.node_spec = nullptr;
    options_.node = node;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    release_most(buffer);
    make_far(buffer, pages);
    EXPECT_EQ(stats().blobs_moved, 0u);
    expect_what_stayed(buffer);
    EXPECT_EQ(pn_heap_close(heap_), 0);
    heap_ = nullptr;
    EXPECT_EQ(pn_node_close(node), 0);
}

// Threads write, read, release, demote and promote at random, in phases in which the heap fills and empties,
// until many a blob was moved under their hands. A page is one thread's, so each knows what must be there.
class PackingUnderLoad : public Packing {
  protected:
    static constexpr std::uint64_t threads_max = 3;
    static constexpr std::uint64_t own_pages = 512;

    void work(std::uint8_t* first, std::uint64_t seed, const std::atomic<bool>& enough) {
        Random random(seed);
        std::vector<std::uint64_t> versions(own_pages);
        for (std::uint64_t step = 0; !enough.load(); ++step) {
            const std::uint64_t page = random.below(own_pages);
            std::uint8_t* const at = first + page * page_bytes;
            const bool filling = step / own_pages % 4 < 2;
            const std::uint64_t what = random.below(16);
            if (what < (filling ? 8u : 1u)) {
                versions[page] = step + 1;
                fill_page(at, kind_of(versions[page]), versions[page]);
            } else if (what < 10) {
                if (pn_release(heap_, at, page_bytes) != 0) ++wrong_;
                versions[page] = 0;
            } else if (what < 12) {
                pn_demote(heap_, first, own_pages * page_bytes, nullptr);
            } else if (what < 13) {
                if (pn_promote(heap_, at, page_bytes) != 0) ++wrong_;
            } else if (!is_right(at, versions[page])) {
                ++wrong_;
            }
        }
        for (std::uint64_t page = 0; page < own_pages; ++page)
            wrong_ += is_right(first + page * page_bytes, versions[page]) ? 0 : 1;
    }
    static Kind kind_of(std::uint64_t version) {
        return compressible_kinds[version % compressible_kinds.size()];
    }
    static bool is_right(const std::uint8_t* page, std::uint64_t version) {
        return version != 0 ? page_is(page, kind_of(version), version) : page_is(page, Kind::zeros, 0);
    }

    std::atomic<std::uint64_t> wrong_{0};
};

TEST_F(PackingUnderLoad, NoByteIsEverAnother) {
    options_.near_bytes_max = mib;
    open_heap();
    const std::uint64_t seed = from_environment("PNODE_SEED", 1);
    std::uint8_t* const buffer = alloc(threads_max * own_pages);
    std::atomic<bool> enough{false};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < threads_max; ++t)
        threads.emplace_back(
            [&, t] { work(buffer + t * own_pages * page_bytes, seed * threads_max + t, enough); });
    EXPECT_TRUE(eventually([&] { return stats().blobs_moved >= 500; })) << stats().blobs_moved;
    enough.store(true);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong_.load(), 0u);
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

}  // namespace
}  // namespace pnode::test
