// Random operations against a model that remembers every blob: what is alive, what a lease still covers, and
// what each must contain.
#include <map>
#include <vector>

#include "tests/cxl/store_fixture.h"

namespace pnode::cxl {
namespace {

struct Blob {
    BlobRef ref;
    std::size_t bytes;
    std::uint64_t tag;
    bool leased;  // by a lease that has not ended
};

class StoreModel : public StoreTest {
  protected:
    void allocate() {
        const std::size_t bytes =
            draw(20) == 0 ? 1 + draw(BlobStore::blob_bytes_max) : realistic_blob_bytes(random);
        const BlobRef ref = store->allocate(bytes);
        if (ref == no_blob) return;
        const Blob blob{ref, bytes, random(), false};
        ASSERT_GE(store->bytes(ref).size(), bytes);
        fill_pattern(store->bytes(ref).first(bytes), blob.tag);
        ASSERT_FALSE(deferred.contains(ref)) << "a leased slot was given away";
        alive.push_back(blob);
    }

    void free_one() {
        if (alive.empty()) return;
        std::swap(alive[draw(alive.size())], alive.back());
        const Blob blob = alive.back();
        alive.pop_back();
        check(blob);
        store->free(blob.ref);
        if (blob.leased) deferred.emplace(blob.ref, blob);
    }

    void lease() {
        store->lease_all();
        ++leases;
        for (Blob& blob : alive) blob.leased = true;
    }

    void end_lease() {
        if (leases == 0) return;
        for (const auto& [ref, blob] : deferred) check(blob);
        store->end_lease();
        if (--leases != 0) return;
        deferred.clear();
        for (Blob& blob : alive) blob.leased = false;
    }

    // What the runtime does, for some of the blobs; the others stay in slabs that are marked. Others come and
    // go between the pieces of the marking.
    void pack() {
        BlobStore::Marking marking;
        while (store->mark_sparse(&marking)) draw(2) == 0 ? allocate() : free_one();
        ASSERT_TRUE(marking.bytes == 0 || leases == 0);
        if (leases != 0) return;  // slabs marked before a lease began may still be: nobody packs then
        for (Blob& blob : alive) {
            if (!store->is_in_sparse(blob.ref) || draw(8) == 0) continue;
            const BlobRef elsewhere = store->allocate_elsewhere(blob.ref);
            if (elsewhere == no_blob) continue;
            ASSERT_FALSE(store->is_in_sparse(elsewhere));
            ASSERT_GE(store->bytes(elsewhere).size(), blob.bytes);
            std::memcpy(store->bytes(elsewhere).data(), store->bytes(blob.ref).data(), blob.bytes);
            store->free(blob.ref);
            blob.ref = elsewhere;
        }
        ASSERT_STREQ(store->validate(), nullptr);
        if (draw(2) == 0) unmark_sparse();
    }

    void check(const Blob& blob) const {
        ASSERT_TRUE(has_pattern(store->bytes(blob.ref).first(blob.bytes), blob.tag))
            << "blob " << blob.ref << " of " << blob.bytes;
    }

    void check_all() const {
        expect_counters();
        ASSERT_STREQ(store->validate(), nullptr);
        for (const Blob& blob : alive) check(blob);
        for (const auto& [ref, blob] : deferred) check(blob);
        ASSERT_LE(resident_bytes(*region), store->physical_bytes());
    }

    void expect_counters() const {
        std::uint64_t bytes = 0;
        for (const Blob& blob : alive) bytes += blob.bytes;
        const StoreCounters counters = store->counters();
        ASSERT_EQ(counters.blobs, alive.size());
        ASSERT_EQ(counters.blob_bytes, bytes);
        ASSERT_EQ(counters.leased_blobs, deferred.size());
        ASSERT_LE(counters.physical_bytes, store->physical_bytes_max());
    }

    // Phases in which the store fills, and in which it empties.
    void step(bool filling) {
        const std::uint64_t what = draw(1000);
        if (what < 2) return lease();
        if (what < 5) return end_lease();
        if (what < 10) return void(store->trim());
        if (what < 11) return pack();
        what % 10 < (filling ? 7u : 3u) ? allocate() : free_one();
    }

    std::uint64_t draw(std::uint64_t below) { return random() % below; }

    std::mt19937_64 random{test_seed()};
    std::vector<Blob> alive;
    std::map<BlobRef, Blob> deferred;
    int leases = 0;
};

TEST_F(StoreModel, agrees_after_every_stretch) {
    make_store(8 * MiB, 6 * MiB);
    for (int stretch = 0; stretch < 40; ++stretch) {
        const bool filling = draw(2) == 0;
        for (int i = 0; i < 1000; ++i) step(filling);
        check_all();
        if (HasFatalFailure()) return;
    }
    while (leases != 0) end_lease();
    while (!alive.empty()) free_one();
    check_all();
    EXPECT_TRUE(region_is_zero());
    while (store->trim() != 0) continue;
    EXPECT_EQ(store->physical_bytes(), 0u);
}

}  // namespace
}  // namespace pnode::cxl
