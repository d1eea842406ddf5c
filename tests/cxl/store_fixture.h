// What the store's tests share: patterns that tell one blob from another, a seed that is printed and can be
// replayed, a region of one's own.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>

#include "cxl/blob_store.h"
#include "cxl/region.h"

namespace pnode::cxl {

inline constexpr std::size_t KiB = 1024;
inline constexpr std::size_t MiB = 1024 * KiB;

// PNODE_SEED=N replays what was printed.
inline std::uint64_t test_seed() {
    const char* given = std::getenv("PNODE_SEED");
    const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
    std::printf("PNODE_SEED=%llu\n", static_cast<unsigned long long>(seed));
    return seed;
}

// Every byte depends on the tag, on the length and on its place.
inline std::byte pattern_byte(std::uint64_t tag, std::size_t length, std::size_t at) {
    const std::uint64_t mixed = (tag + length * 0x9e3779b97f4a7c15u + at) * 0xff51afd7ed558ccdu;
    return static_cast<std::byte>(mixed >> 56);
}

inline void fill_pattern(std::span<std::byte> blob, std::uint64_t tag) {
    for (std::size_t at = 0; at < blob.size(); ++at) blob[at] = pattern_byte(tag, blob.size(), at);
}

inline bool has_pattern(std::span<const std::byte> blob, std::uint64_t tag) {
    for (std::size_t at = 0; at < blob.size(); ++at) {
        if (blob[at] != pattern_byte(tag, blob.size(), at)) return false;
    }
    return true;
}

inline std::unique_ptr<Region> make_region(std::size_t bytes) {
    std::unique_ptr<Region> region;
    std::string message;
    EXPECT_EQ(open_memory_region(bytes, &region, &message), 0) << message;
    return region;
}

// What the kernel says the region holds.
inline std::uint64_t resident_bytes(const Region& region) {
    struct stat status {};
    EXPECT_EQ(fstat(region.descriptor(), &status), 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

// Compressed pages of a heap of JSON records: sizes from 40 to 3600, mean about 1400.
inline std::size_t realistic_blob_bytes(std::mt19937_64& random) {
    std::normal_distribution<double> typical(1400, 600);
    return static_cast<std::size_t>(std::clamp(typical(random), 40.0, 3600.0));
}

struct StoreTest : testing::Test {
    // Writes the whole slot, so that every byte the store accounts is there.
    BlobRef allocate_filled(std::size_t bytes, std::uint64_t tag = 1) {
        const BlobRef ref = store->allocate(bytes);
        if (ref != no_blob) fill_pattern(store->bytes(ref), tag);
        return ref;
    }
    void make_store(std::size_t bytes, std::size_t physical_bytes_max = 0) {
        store.reset();
        region = make_region(bytes);
        store = std::make_unique<BlobStore>(*region, physical_bytes_max);
    }
    // All of it at once. Returns the bytes of marked slabs.
    std::size_t mark_sparse() {
        BlobStore::Marking marking;
        while (store->mark_sparse(&marking)) continue;
        return marking.bytes;
    }
    void unmark_sparse() {
        while (store->unmark_sparse()) continue;
    }
    void expect_sound() { EXPECT_STREQ(store->validate(), nullptr); }
    bool region_is_zero() const {
        const std::byte* bytes = region->bytes();
        return std::all_of(bytes, bytes + region->size_bytes(),
                           [](std::byte b) { return b == std::byte{0}; });
    }

    std::unique_ptr<Region> region;
    std::unique_ptr<BlobStore> store;
};

}  // namespace pnode::cxl
