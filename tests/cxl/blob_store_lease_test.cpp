// Leases: what a forked child may still read is neither freed, scrubbed nor moved until the lease ends.
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "tests/cxl/store_fixture.h"

namespace pnode::cxl {
namespace {

using BlobLease = StoreTest;

bool is_zero(std::span<const std::byte> bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

TEST_F(BlobLease, keeps_the_bytes_of_freed_blobs_until_it_ends) {
    make_store(1 * MiB);
    const BlobRef old = allocate_filled(1000, 5);
    store->lease_all();
    store->free(old);
    EXPECT_TRUE(has_pattern(store->bytes(old), 5));
    EXPECT_EQ(store->counters().blobs, 0u);
    EXPECT_EQ(store->counters().leased_blobs, 1u);
    EXPECT_EQ(store->trim(), 0u);
    expect_sound();
    const std::span<std::byte> slot = store->bytes(old);
    store->end_lease();
    EXPECT_TRUE(is_zero(slot));
    EXPECT_EQ(store->counters().leased_blobs, 0u);
    EXPECT_EQ(store->trim(), 8 * KiB);
    expect_sound();
}

TEST_F(BlobLease, does_not_cover_what_came_later) {
    make_store(1 * MiB);
    const BlobRef old = allocate_filled(1000);
    store->lease_all();
    const BlobRef young = allocate_filled(1000);
    const std::span<std::byte> slot = store->bytes(young);
    store->free(young);
    EXPECT_TRUE(is_zero(slot));
    EXPECT_EQ(store->counters().leased_blobs, 0u);
    EXPECT_EQ(store->allocate(1000), young) << "free for the next at once";
    EXPECT_TRUE(has_pattern(store->bytes(old), 1));
    store->end_lease();
    expect_sound();
}

TEST_F(BlobLease, second_one_covers_what_is_alive_then_and_all_end_with_the_last) {
    make_store(1 * MiB);
    const BlobRef first = allocate_filled(1000, 1);
    store->lease_all();
    const BlobRef second = allocate_filled(1000, 2);
    store->free(first);
    store->lease_all();
    const BlobRef third = allocate_filled(1000, 3);
    store->free(second);
    store->free(third);
    EXPECT_EQ(store->counters().leased_blobs, 2u);
    store->end_lease();
    EXPECT_TRUE(has_pattern(store->bytes(first), 1));
    EXPECT_TRUE(has_pattern(store->bytes(second), 2));
    expect_sound();
    store->end_lease();
    EXPECT_EQ(store->counters().leased_blobs, 0u);
    EXPECT_TRUE(region_is_zero());
    expect_sound();
}

TEST_F(BlobLease, of_an_earlier_time_is_forgotten) {
    make_store(1 * MiB);
    const BlobRef kept = allocate_filled(1000);
    const BlobRef covered = allocate_filled(1000);
    store->lease_all();
    store->free(covered);
    store->end_lease();
    store->lease_all();
    const BlobRef young = allocate_filled(1000);
    EXPECT_EQ(young, covered);
    store->free(young);
    EXPECT_EQ(store->counters().leased_blobs, 0u) << "the old lease's bitmap must not count";
    store->free(kept);
    EXPECT_EQ(store->counters().leased_blobs, 1u);
    store->end_lease();
    expect_sound();
}

TEST_F(BlobLease, fills_the_store_no_further_than_its_limit) {
    make_store(1 * MiB);
    std::vector<BlobRef> blobs;
    for (BlobRef ref; (ref = allocate_filled(2000)) != no_blob;) blobs.push_back(ref);
    store->lease_all();
    for (const BlobRef ref : blobs) store->free(ref);
    EXPECT_EQ(store->allocate(2000), no_blob);
    store->end_lease();
    EXPECT_NE(store->allocate(2000), no_blob);
    expect_sound();
}

TEST_F(BlobLease, ends_for_blobs_of_every_size) {
    make_store(64 * MiB);
    std::vector<BlobRef> blobs;
    for (std::size_t bytes = 1; bytes <= BlobStore::blob_bytes_max; bytes += 1 + bytes / 20)
        blobs.push_back(allocate_filled(bytes));
    store->lease_all();
    for (const BlobRef ref : blobs) store->free(ref);
    EXPECT_EQ(store->counters().leased_blobs, blobs.size());
    store->end_lease();
    EXPECT_TRUE(region_is_zero());
    while (store->trim() != 0) continue;
    EXPECT_EQ(store->physical_bytes(), 0u);
    expect_sound();
}

// The parent frees everything and writes new blobs over what it can, before the child looks.
TEST_F(BlobLease, lets_a_child_read_what_the_parent_frees) {
    make_store(16 * MiB);
    std::vector<BlobRef> blobs;
    for (std::uint64_t i = 0; i < 3000; ++i) blobs.push_back(allocate_filled(40 + i, i));
    int go[2];
    ASSERT_EQ(pipe(go), 0);

    store->lock_all();
    store->lease_all_locked();
    const pid_t child = fork();
    if (child == 0) {
        char byte = 0;
        close(go[1]);
        if (read(go[0], &byte, 1) != 1) _exit(2);
        for (std::uint64_t i = 0; i < blobs.size(); ++i) {
            if (!has_pattern(store->bytes(blobs[i]), i)) _exit(1);
        }
        _exit(0);
    }
    store->unlock_all();
    ASSERT_GT(child, 0);

    for (const BlobRef ref : blobs) store->free(ref);
    while (allocate_filled(1500, 99) != no_blob) continue;
    store->trim();
    expect_sound();
    ASSERT_EQ(write(go[1], "g", 1), 1);
    close(go[0]);
    close(go[1]);
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "2 is no word from the parent, 1 a wrong byte";
    store->end_lease();
    EXPECT_EQ(store->counters().leased_blobs, 0u);
    expect_sound();
}

}  // namespace
}  // namespace pnode::cxl
