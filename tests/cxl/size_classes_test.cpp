#include "cxl/size_classes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "cxl/blob_store.h"

namespace pnode::cxl {
namespace {

TEST(SlotSize, is_the_smallest_that_fits_and_never_shrinks) {
    std::size_t previous = 0;
    for (std::size_t bytes = 1; bytes <= BlobStore::blob_bytes_max; ++bytes) {
        const std::size_t slot = BlobStore::slot_bytes_for(bytes);
        ASSERT_GE(slot, bytes);
        ASSERT_GE(slot, previous);
        ASSERT_EQ(slot % unit_bytes, 0u);
        // A slot's own size lands in that slot, so nothing smaller would have done.
        if (slot <= BlobStore::blob_bytes_max) {
            ASSERT_EQ(BlobStore::slot_bytes_for(slot), slot);
        }
        previous = slot;
    }
}

TEST(SlotSize, of_nothing_and_of_too_much_is_0) {
    EXPECT_EQ(BlobStore::slot_bytes_for(0), 0u);
    EXPECT_EQ(BlobStore::slot_bytes_for(BlobStore::blob_bytes_max + 1), 0u);
    EXPECT_EQ(BlobStore::slot_bytes_for(SIZE_MAX), 0u);
}

TEST(SlotSize, neighbours_are_close) {
    std::size_t worst_permille = 0;
    for (std::size_t bytes = 512; bytes <= 4096; ++bytes) {
        const std::size_t slack = BlobStore::slot_bytes_for(bytes) - bytes;
        worst_permille = std::max(worst_permille, slack * 1000 / bytes);
    }
    EXPECT_LE(worst_permille, 125u);
}

}  // namespace
}  // namespace pnode::cxl
