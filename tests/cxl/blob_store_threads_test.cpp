// Several threads at once: every one finds its own blobs whole, and the books balance at the end. Meant for
// ThreadSanitizer too.
#include <atomic>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/cxl/store_fixture.h"

namespace pnode::cxl {
namespace {

class StoreThreads : public StoreTest {
  protected:
    struct Blob {
        BlobRef ref;
        std::size_t bytes;
        std::uint64_t tag;
    };

    // Allocates, frees its own oldest, and hands some to the others to be read and freed.
    void churn(std::uint64_t seed, int steps) {
        std::mt19937_64 random(seed);
        std::deque<Blob> mine;
        for (int i = 0; i < steps; ++i) {
            const std::size_t bytes =
                random() % 50 == 0 ? 1 + random() % BlobStore::blob_bytes_max : realistic_blob_bytes(random);
            const BlobRef ref = store->allocate(bytes);
            if (ref != no_blob) {
                mine.push_back({ref, bytes, random()});
                fill_pattern(store->bytes(ref).first(bytes), mine.back().tag);
            }
            if (random() % 8 == 0 && !mine.empty()) swap_with_others(&mine);
            while (mine.size() > 100 || (ref == no_blob && mine.size() > 50)) free_oldest(&mine);
            if (random() % 200 == 0) store->trim();
        }
        while (!mine.empty()) free_oldest(&mine);
    }

    void swap_with_others(std::deque<Blob>* mine) {
        const std::lock_guard guard(shared_lock);
        shared.push_back(mine->front());
        mine->front() = shared.front();
        shared.pop_front();
    }

    void free_oldest(std::deque<Blob>* mine) {
        const Blob blob = mine->front();
        mine->pop_front();
        if (!has_pattern(store->bytes(blob.ref).first(blob.bytes), blob.tag)) ++wrong;
        store->free(blob.ref);
    }

    void churn_together(int threads, int steps) {
        const std::uint64_t seed = test_seed();
        std::vector<std::thread> all;
        for (int i = 0; i < threads; ++i)
            all.emplace_back([=, this] { churn(seed + static_cast<unsigned>(i), steps); });
        for (std::thread& thread : all) thread.join();
        while (!shared.empty()) free_oldest(&shared);
        EXPECT_EQ(wrong, 0);
        EXPECT_EQ(store->counters().blobs, 0u);
    }

    std::mutex shared_lock;
    std::deque<Blob> shared;
    std::atomic<int> wrong{0};
};

TEST_F(StoreThreads, share_a_store_with_room) {
    make_store(32 * MiB);
    churn_together(4, 4000);
    expect_sound();
}

TEST_F(StoreThreads, share_a_store_that_is_often_full) {
    make_store(2 * MiB, 1 * MiB);
    churn_together(4, 4000);
    expect_sound();
}

// Leases come and go under the churn; with all of them over, everything is free and scrubbed.
TEST_F(StoreThreads, share_a_store_under_leases) {
    make_store(16 * MiB);
    std::atomic<bool> stop{false};
    std::thread leaser([&] {
        while (!stop) {
            store->lease_all();
            store->lease_all();
            store->end_lease();
            std::this_thread::yield();
            store->end_lease();
        }
    });
    churn_together(3, 3000);
    stop = true;
    leaser.join();
    EXPECT_EQ(store->counters().leased_blobs, 0u);
    EXPECT_TRUE(region_is_zero());
    expect_sound();
}

TEST_F(StoreThreads, counters_are_read_without_a_lock) {
    make_store(8 * MiB);
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> above_limit{0};
    std::thread reader([&] {
        while (!stop) {
            if (store->counters().physical_bytes > store->physical_bytes_max()) ++above_limit;
            std::this_thread::yield();
        }
    });
    churn_together(2, 2000);
    stop = true;
    reader.join();
    expect_sound();
    EXPECT_EQ(above_limit, 0u);
}

}  // namespace
}  // namespace pnode::cxl
