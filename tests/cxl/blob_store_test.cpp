// The store alone: slots, slack, full and reuse, scrubbing, physical accounting, misuse.
#include "cxl/blob_store.h"

#include <cerrno>
#include <set>
#include <utility>
#include <vector>

#include "tests/cxl/store_fixture.h"

namespace pnode::cxl {
namespace {

using BlobStoreTest = StoreTest;

TEST_F(BlobStoreTest, gives_slots_that_do_not_overlap_and_lie_in_the_region) {
    make_store(64 * MiB);
    std::vector<std::pair<BlobRef, std::uint64_t>> blobs;
    for (std::size_t bytes = 1; bytes <= BlobStore::blob_bytes_max; bytes += 1 + bytes / 16) {
        const BlobRef ref = store->allocate(bytes);
        ASSERT_NE(ref, no_blob) << bytes;
        ASSERT_LT(ref >> blob_ref_bits, 1u);
        const std::span<std::byte> slot = store->bytes(ref);
        ASSERT_EQ(slot.size(), BlobStore::slot_bytes_for(bytes));
        ASSERT_GE(slot.data(), region->bytes());
        ASSERT_LE(slot.data() + slot.size(), region->bytes() + region->size_bytes());
        fill_pattern(slot, bytes);
        blobs.emplace_back(ref, bytes);
        store->trim();
    }
    for (const auto& [ref, bytes] : blobs) EXPECT_TRUE(has_pattern(store->bytes(ref), bytes)) << bytes;
    expect_sound();
}

TEST_F(BlobStoreTest, refuses_sizes_out_of_range) {
    make_store(1 * MiB);
    EXPECT_EQ(store->allocate(0), no_blob);
    EXPECT_EQ(store->allocate(BlobStore::blob_bytes_max + 1), no_blob);
    EXPECT_EQ(store->allocate(SIZE_MAX), no_blob);
    EXPECT_EQ(store->physical_bytes(), 0u);
}

TEST_F(BlobStoreTest, counts_to_the_byte) {
    make_store(4 * MiB);
    const BlobRef a = store->allocate(100);
    const BlobRef b = store->allocate(3000);
    const BlobRef c = store->allocate(65600);
    StoreCounters counters = store->counters();
    EXPECT_EQ(counters.blobs, 3u);
    EXPECT_EQ(counters.blob_bytes, 100u + 3000 + 65600);
    EXPECT_EQ(counters.slot_bytes, store->bytes(a).size() + store->bytes(b).size() + store->bytes(c).size());
    EXPECT_EQ(counters.physical_bytes, 8 * KiB + 16 * KiB + 512 * KiB);
    for (const BlobRef ref : {a, b, c}) store->free(ref);
    counters = store->counters();
    EXPECT_EQ(counters.blobs + counters.blob_bytes + counters.slot_bytes + counters.leased_blobs, 0u);
    EXPECT_EQ(counters.physical_bytes, 536 * KiB) << "freed, not yet discarded";
    EXPECT_EQ(store->trim(), 536 * KiB);
    EXPECT_EQ(store->physical_bytes(), 0u);
    EXPECT_EQ(resident_bytes(*region), 0u);
    expect_sound();
}

TEST_F(BlobStoreTest, slack_stays_under_5_percent_on_realistic_sizes) {
    make_store(64 * MiB);
    std::mt19937_64 random(test_seed());
    for (int i = 0; i < 30000; ++i) ASSERT_NE(store->allocate(realistic_blob_bytes(random)), no_blob);
    const StoreCounters counters = store->counters();
    const double blob_bytes = static_cast<double>(counters.blob_bytes);
    EXPECT_LT(static_cast<double>(counters.slot_bytes) / blob_bytes - 1, 0.05);
    EXPECT_LT(static_cast<double>(counters.physical_bytes) / blob_bytes - 1, 0.08)
        << "with the slabs' tails and partly filled slabs";
    std::printf("slack %.2f %%, physical %.2f %% over\n",
                100 * (static_cast<double>(counters.slot_bytes) / blob_bytes - 1),
                100 * (static_cast<double>(counters.physical_bytes) / blob_bytes - 1));
}

// Small stores are where partly filled slabs would cost most.
TEST_F(BlobStoreTest, packs_a_small_set_tightly_after_replacements_too) {
    make_store(64 * MiB);
    std::mt19937_64 random(test_seed());
    std::vector<BlobRef> blobs;
    for (int i = 0; i < 10000; ++i) blobs.push_back(store->allocate(realistic_blob_bytes(random)));
    const auto overhead = [this] {
        while (store->trim() != 0) continue;
        const StoreCounters counters = store->counters();
        return static_cast<double>(counters.physical_bytes) / static_cast<double>(counters.blob_bytes) - 1;
    };
    EXPECT_LT(overhead(), 0.09);
    for (int i = 0; i < 30000; ++i) {
        BlobRef& blob = blobs[random() % blobs.size()];
        store->free(blob);
        blob = store->allocate(realistic_blob_bytes(random));
    }
    EXPECT_LT(overhead(), 0.15);
    expect_sound();
}

// Slabs of all sizes side by side, freed in any order: what they leave serves whole chunks again.
TEST_F(BlobStoreTest, slabs_of_every_size_share_chunks_and_leave_them_whole) {
    make_store(4 * MiB);
    std::mt19937_64 random(test_seed());
    for (int round = 0; round < 10; ++round) {
        std::vector<BlobRef> blobs;
        for (BlobRef ref = 1; ref != no_blob;) {
            ref = allocate_filled(1 + random() % 8192, random());
            if (ref != no_blob) blobs.push_back(ref);
        }
        expect_sound();
        EXPECT_LE(resident_bytes(*region), store->physical_bytes());
        std::shuffle(blobs.begin(), blobs.end(), random);
        for (const BlobRef ref : blobs) store->free(ref);
        expect_sound();
    }
    for (int chunk = 0; chunk < 8; ++chunk) {
        for (int slot = 0; slot < 7; ++slot) ASSERT_NE(store->allocate(65600), no_blob);
    }
    EXPECT_EQ(store->allocate(65600), no_blob);
    EXPECT_EQ(store->physical_bytes(), 4 * MiB);
}

TEST_F(BlobStoreTest, full_is_no_blob_and_space_freed_serves_every_other_size) {
    make_store(2 * MiB);
    for (const std::size_t bytes : {100u, 3600u, 20000u, 65600u, 700u, 8192u, 8193u, 64u}) {
        std::vector<BlobRef> blobs;
        for (BlobRef ref; (ref = allocate_filled(bytes)) != no_blob;) blobs.push_back(ref);
        EXPECT_EQ(store->physical_bytes(), 2 * MiB) << bytes;
        EXPECT_EQ(store->allocate(bytes), no_blob);
        std::shuffle(blobs.begin(), blobs.end(), std::mt19937_64(1));
        for (const BlobRef ref : blobs) store->free(ref);
        EXPECT_EQ(store->counters().blobs, 0u);
        expect_sound();
    }
}

TEST_F(BlobStoreTest, at_the_physical_limit_free_slabs_of_any_size_are_found) {
    make_store(16 * MiB, 1 * MiB);
    EXPECT_EQ(store->physical_bytes_max(), 1 * MiB);
    std::vector<BlobRef> blobs;
    for (BlobRef ref; (ref = store->allocate(1000)) != no_blob;) blobs.push_back(ref);
    EXPECT_EQ(store->physical_bytes(), 1 * MiB);
    // Free every second chunk's worth, in both chunks: no chunk is whole, yet trimming makes room for one
    // elsewhere.
    for (const BlobRef ref : blobs) {
        if ((ref - 1) * 16 / (64 * KiB) % 2 == 0) store->free(ref);
    }
    EXPECT_EQ(store->physical_bytes(), 1 * MiB);
    const BlobRef large = store->allocate(60000);
    ASSERT_NE(large, no_blob);
    EXPECT_EQ(store->physical_bytes(), 1 * MiB);
    expect_sound();
}

TEST_F(BlobStoreTest, physical_limit_can_be_lowered_and_raised) {
    make_store(4 * MiB);
    std::vector<BlobRef> blobs;
    for (int i = 0; i < 1000; ++i) blobs.push_back(allocate_filled(2000));
    store->set_physical_bytes_max(256 * KiB);
    EXPECT_EQ(store->allocate(500), no_blob);
    while (store->counters().blobs > 50) {
        store->free(blobs.back());
        blobs.pop_back();
    }
    EXPECT_NE(store->allocate(500), no_blob) << "it trims by itself";
    EXPECT_LE(store->physical_bytes(), 256 * KiB);
    store->set_physical_bytes_max(0);
    EXPECT_EQ(store->physical_bytes_max(), 4 * MiB);
    expect_sound();
}

TEST_F(BlobStoreTest, region_of_odd_size_is_used_to_its_last_whole_slab) {
    make_store(64 * KiB * 11 + 4096);
    EXPECT_EQ(store->physical_bytes_max(), 64 * KiB * 11);
    ASSERT_NE(store->allocate(65600), no_blob);
    std::size_t large = 1;
    while (store->allocate(65600) != no_blob) ++large;
    EXPECT_EQ(large, 7u) << "the three slabs at the end are no whole chunk";
    std::size_t small = 0;
    while (store->allocate(8192) != no_blob) ++small;
    EXPECT_EQ(small, 3u * 8);
    EXPECT_EQ(store->physical_bytes(), 64 * KiB * 11);
}

TEST_F(BlobStoreTest, region_below_a_slab_is_always_full) {
    make_store(4 * KiB);
    EXPECT_EQ(store->allocate(64), no_blob);
    EXPECT_EQ(store->trim(), 0u);
    expect_sound();
}

TEST_F(BlobStoreTest, freed_slots_are_scrubbed_before_anything_else_happens) {
    make_store(16 * MiB);
    std::mt19937_64 random(test_seed());
    std::vector<BlobRef> blobs;
    for (int i = 0; i < 1500; ++i) blobs.push_back(allocate_filled(realistic_blob_bytes(random), random()));
    blobs.push_back(allocate_filled(65600, 3));
    ASSERT_FALSE(region_is_zero());
    std::shuffle(blobs.begin(), blobs.end(), random);
    for (const BlobRef ref : blobs) {
        const std::span<std::byte> slot = store->bytes(ref);
        store->free(ref);
        ASSERT_TRUE(std::all_of(slot.begin(), slot.end(), [](std::byte b) { return b == std::byte{0}; }));
    }
    EXPECT_TRUE(region_is_zero());
}

// C05: no byte of the region is the store's own or believed by it.
TEST_F(BlobStoreTest, survives_the_region_being_overwritten) {
    make_store(16 * MiB);
    std::mt19937_64 random(test_seed());
    std::vector<BlobRef> blobs;
    for (int i = 0; i < 1000; ++i) blobs.push_back(store->allocate(realistic_blob_bytes(random)));
    for (std::size_t i = 0; i < 500; ++i) store->free(blobs[i]);
    std::memset(region->bytes(), 0xff, region->size_bytes());
    expect_sound();
    for (std::size_t i = 500; i < 1000; ++i) store->free(blobs[i]);
    expect_sound();
    std::set<BlobRef> again;
    for (int i = 0; i < 1000; ++i) EXPECT_TRUE(again.insert(store->allocate(1400)).second);
    expect_sound();
}

TEST_F(BlobStoreTest, physical_bytes_is_what_the_kernel_counts) {
    make_store(32 * MiB);
    std::mt19937_64 random(test_seed());
    std::vector<BlobRef> blobs;
    for (int round = 0; round < 20; ++round) {
        for (int i = 0; i < 600; ++i)
            blobs.push_back(allocate_filled(4096));  // whole pages: every byte of a full slab is written
        std::shuffle(blobs.begin(), blobs.end(), random);
        for (int i = 0; i < 500; ++i) {
            store->free(blobs.back());
            blobs.pop_back();
        }
        ASSERT_LE(resident_bytes(*region), store->physical_bytes());
        store->trim();
        ASSERT_LE(resident_bytes(*region), store->physical_bytes());
    }
    // Filled up: the two are equal.
    for (BlobRef ref; (ref = allocate_filled(4096)) != no_blob;) blobs.push_back(ref);
    EXPECT_EQ(store->physical_bytes(), 32 * MiB);
    EXPECT_EQ(resident_bytes(*region), 32 * MiB);
    for (const BlobRef ref : blobs) store->free(ref);
    EXPECT_EQ(store->trim(), 32 * MiB);
    EXPECT_EQ(resident_bytes(*region), 0u);
    EXPECT_EQ(store->physical_bytes(), 0u);
    expect_sound();
}

TEST_F(BlobStoreTest, trim_is_bounded_and_goes_on_where_it_stopped) {
    make_store(80 * MiB);
    std::vector<BlobRef> blobs;
    while (store->physical_bytes() < 80 * MiB) blobs.push_back(store->allocate(8192));
    for (const BlobRef ref : blobs) store->free(ref);
    EXPECT_EQ(store->trim(), 32 * MiB);
    EXPECT_EQ(store->trim(), 32 * MiB);
    EXPECT_EQ(store->trim(), 16 * MiB);
    EXPECT_EQ(store->trim(), 0u);
    EXPECT_EQ(store->physical_bytes(), 0u);
    expect_sound();
}

// A region whose owner refuses to take anything back.
class KeepingRegion final : public Region {
  public:
    explicit KeepingRegion(Region& real) {
        bytes_ = real.bytes();
        size_bytes_ = real.size_bytes();
    }
    const char* kind() const noexcept override { return "keeping"; }
    int descriptor() const noexcept override { return -1; }
    int discard(std::size_t, std::size_t) noexcept override { return EBUSY; }
};

TEST_F(BlobStoreTest, what_cannot_be_discarded_stays_counted_and_usable) {
    make_store(1 * MiB);
    store.reset();
    KeepingRegion keeping(*region);
    store = std::make_unique<BlobStore>(keeping);
    for (int round = 0; round < 3; ++round) {
        std::vector<BlobRef> blobs;
        for (BlobRef ref; (ref = allocate_filled(1000)) != no_blob;) blobs.push_back(ref);
        for (const BlobRef ref : blobs) store->free(ref);
        EXPECT_EQ(store->trim(), 0u);
        EXPECT_EQ(store->physical_bytes(), 1 * MiB);
        expect_sound();
    }
    store.reset();
}

TEST_F(BlobStoreTest, tebibyte_costs_nothing_until_used) {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "ThreadSanitizer shadows whole mappings";
#endif
    make_store(BlobStore::region_bytes_max);
    EXPECT_EQ(store->physical_bytes_max(), BlobStore::region_bytes_max);
    const BlobRef ref = allocate_filled(1000);
    ASSERT_NE(ref, no_blob);
    EXPECT_TRUE(has_pattern(store->bytes(ref), 1));
    EXPECT_EQ(store->physical_bytes(), 8 * KiB);
    store->free(ref);
}

using BlobStoreDeathTest = StoreTest;

TEST_F(BlobStoreDeathTest, misuse_ends_the_process_with_the_reason) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    make_store(1 * MiB);
    const BlobRef ref = store->allocate(1000);
    const BlobRef other = store->allocate(1000);
    EXPECT_DEATH(store->free(no_blob), "no place in the region");
    EXPECT_DEATH(store->free(BlobRef{1} << 35), "no place in the region");
    EXPECT_DEATH(store->free(ref + 1), "into a slot");
    EXPECT_DEATH(
        {
            store->free(ref);
            store->free(ref);
        },
        "freed twice");
    EXPECT_DEATH(
        {
            store->free(ref);
            store->free(other);
            store->free(ref);
        },
        "a slab that is free");
    EXPECT_DEATH(store->end_lease(), "never began");
}

}  // namespace
}  // namespace pnode::cxl
