// Packing: which slabs are emptied, and that the store is smaller afterwards.
#include <algorithm>
#include <vector>

#include "cxl/packing_plan.h"
#include "tests/cxl/store_fixture.h"

namespace pnode::cxl {
namespace {

TEST(PackingPlan, the_emptiest_go_where_the_fuller_ones_have_room) {
    std::vector<BegunSlab> begun = {{1, 2}, {2, 9}, {3, 1}, {4, 8}};  // 20 blobs
    const PackingPlan plan = plan_packing(begun, 10, {});
    EXPECT_EQ(plan.kept, 2u);
    EXPECT_EQ(plan.room, 0u);
    EXPECT_EQ(begun[0].slab, 2u);
    EXPECT_EQ(begun[1].slab, 4u);
}

TEST(PackingPlan, nothing_goes_that_has_no_room) {
    std::vector<BegunSlab> begun = {{1, 7}, {2, 5}};
    const PackingPlan plan = plan_packing(begun, 10, {});
    EXPECT_EQ(plan.kept, 2u);
    EXPECT_EQ(plan.room, 8u);
    EXPECT_EQ(plan_packing({}, 10, {}).kept, 0u);
}

TEST(PackingPlan, the_last_goes_to_larger_slots_the_nearest_first) {
    std::vector<BegunSlab> begun = {{1, 7}, {2, 5}};
    std::vector<std::uint32_t> larger = {1, 0, 5};
    const PackingPlan plan = plan_packing(begun, 10, larger);
    EXPECT_EQ(plan.kept, 1u);
    EXPECT_EQ(plan.room, 0u);
    EXPECT_EQ(larger, (std::vector<std::uint32_t>{0, 0, 4}));
    std::vector<BegunSlab> more = {{1, 5}};
    EXPECT_EQ(plan_packing(more, 10, larger).kept, 1u) << "4 are free";
    EXPECT_EQ(larger[2], 4u);
}

struct Blob {
    BlobRef ref;
    std::size_t bytes;
    std::uint64_t tag;
};

class PackingTest : public StoreTest {
  protected:
    // A store most of whose blobs were freed again.
    void make_sparse_store() {
        make_store(64 * MiB);
        for (std::uint64_t tag = 0; tag < 8000; ++tag) {
            const std::size_t bytes = realistic_blob_bytes(random);
            const BlobRef ref = store->allocate(bytes);
            ASSERT_NE(ref, no_blob);
            fill_pattern(store->bytes(ref).first(bytes), tag);
            if (random() % 8 == 0)
                blobs.push_back({ref, bytes, tag});
            else
                to_free.push_back(ref);
        }
        for (const BlobRef ref : to_free) store->free(ref);
        while (store->trim() != 0) continue;
    }
    void replace_one() {
        Blob& blob = blobs[random() % blobs.size()];
        store->free(blob.ref);
        blob.bytes = realistic_blob_bytes(random);
        blob.ref = store->allocate(blob.bytes);
        ASSERT_NE(blob.ref, no_blob);
        fill_pattern(store->bytes(blob.ref).first(blob.bytes), blob.tag);
    }
    std::size_t pack() {
        const std::size_t marked = mark_sparse();
        for (Blob& blob : blobs) {
            if (!store->is_in_sparse(blob.ref)) continue;
            const BlobRef elsewhere = store->allocate_elsewhere(blob.ref);
            if (elsewhere == no_blob) continue;
            std::memcpy(store->bytes(elsewhere).data(), store->bytes(blob.ref).data(), blob.bytes);
            store->free(blob.ref);
            blob.ref = elsewhere;
        }
        expect_sound();
        unmark_sparse();
        while (store->trim() != 0) continue;
        return marked;
    }
    void expect_all_there() {
        expect_sound();
        for (const Blob& blob : blobs)
            ASSERT_TRUE(has_pattern(store->bytes(blob.ref).first(blob.bytes), blob.tag));
    }

    std::mt19937_64 random{test_seed()};
    std::vector<Blob> blobs;
    std::vector<BlobRef> to_free;
};

TEST_F(PackingTest, gives_back_what_few_blobs_held) {
    make_sparse_store();
    const std::uint64_t before = store->physical_bytes();
    for (int rounds = 0; rounds < 20 && pack() != 0; ++rounds) continue;
    const StoreCounters counters = store->counters();
    EXPECT_EQ(counters.blobs, blobs.size());
    EXPECT_LT(counters.physical_bytes, before / 3);
    EXPECT_LT(static_cast<double>(counters.physical_bytes), 1.3 * static_cast<double>(counters.blob_bytes));
    expect_all_there();
}

TEST_F(PackingTest, marks_nothing_under_a_lease) {
    make_sparse_store();
    store->lease_all();
    EXPECT_EQ(mark_sparse(), 0u);
    store->end_lease();
    EXPECT_NE(mark_sparse(), 0u);
    expect_sound();
}

// Many slabs of one size, all half empty: a piece looks at some, the pieces at all of them.
TEST_F(PackingTest, looks_at_every_begun_slab_piece_by_piece) {
    make_store(64 * MiB);
    constexpr std::size_t bytes = 2000;
    for (std::uint64_t tag = 0; tag < 16000; ++tag) {
        const BlobRef ref = allocate_filled(bytes, tag);
        ASSERT_NE(ref, no_blob);
        if (tag % 2 == 0) {
            to_free.push_back(ref);
        } else {
            blobs.push_back({ref, bytes, tag});
            fill_pattern(store->bytes(ref).first(bytes), tag);
        }
    }
    for (const BlobRef ref : to_free) store->free(ref);
    const std::uint64_t before = store->physical_bytes();
    EXPECT_GT(store->free_slot_bytes(), before / 3);
    BlobStore::Marking marking;
    EXPECT_TRUE(store->mark_sparse(&marking)) << "one piece was enough: it is no piece";
    const std::uint64_t first_piece = marking.bytes;
    while (store->mark_sparse(&marking)) continue;
    EXPECT_GT(marking.bytes, 2 * first_piece);
    EXPECT_TRUE(store->unmark_sparse());
    unmark_sparse();
    EXPECT_EQ(pack(), marking.bytes);
    EXPECT_LT(store->physical_bytes(), before * 6 / 10);
    EXPECT_LT(store->free_slot_bytes(), before / 50);
    expect_all_there();
}

// Between two pieces blobs come and go.
TEST_F(PackingTest, marks_while_slabs_fill_and_empty) {
    make_sparse_store();
    for (int rounds = 0; rounds < 20; ++rounds) {
        BlobStore::Marking marking;
        for (bool more = true; more;) {
            more = store->mark_sparse(&marking);
            for (int i = 0; i < 50; ++i) replace_one();
            expect_sound();
        }
        for (bool more = true; more; replace_one()) more = store->unmark_sparse();
        expect_all_there();
    }
}

// What is marked is still room: no slab is opened beside it.
TEST_F(PackingTest, a_marked_slab_is_used_before_another_is_opened) {
    make_sparse_store();
    EXPECT_NE(mark_sparse(), 0u);
    const std::uint64_t before = store->physical_bytes();
    std::uint64_t slots = 0;
    for (const Blob& blob : blobs) slots += store->is_in_sparse(blob.ref) ? 1 : 0;
    ASSERT_GT(slots, 0u);
    while (store->physical_bytes() == before) {
        const std::size_t bytes = blobs[random() % blobs.size()].bytes;
        ASSERT_NE(allocate_filled(bytes, 1), no_blob);
    }
    expect_all_there();
}

TEST_F(PackingTest, a_full_store_uses_what_is_marked) {
    make_sparse_store();
    store->set_physical_bytes_max(store->physical_bytes());
    EXPECT_NE(mark_sparse(), 0u);
    const std::size_t bytes = blobs[0].bytes;
    std::size_t placed = 0;
    while (allocate_filled(bytes, 1) != no_blob) ++placed;
    for (const Blob& blob : blobs) {
        if (store->is_in_sparse(blob.ref)) {
            EXPECT_NE(BlobStore::slot_bytes_for(blob.bytes), BlobStore::slot_bytes_for(bytes));
        }
    }
    EXPECT_GT(placed, 0u);
    expect_all_there();
}

}  // namespace
}  // namespace pnode::cxl
