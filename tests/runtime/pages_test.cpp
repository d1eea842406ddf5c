// What becomes of pages: demoted and read back, promoted, pinned, released, told about.
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class Codec : public HeapTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(Codec, ReadsBackEveryKindOfPage) {
    options_.codec = GetParam();
    open_heap();
    constexpr std::uint64_t pages = 48;
    for (const Kind kind : every_kind) {
        SCOPED_TRACE(static_cast<int>(kind));
        std::uint8_t* const buffer = alloc_filled(pages, kind, 1);
        demote(buffer, pages);
        EXPECT_EQ(wrong_pages(buffer, pages, kind, 1), 0u);
        fill_pages(buffer, pages, kind, 1000);
        demote(buffer, pages);
        EXPECT_EQ(wrong_pages(buffer, pages, kind, 1000), 0u);
    }
}

TEST_P(Codec, ReadsBackNeighboursOfDifferentKinds) {
    options_.codec = GetParam();
    open_heap();
    constexpr std::uint64_t pages = 64;
    std::uint8_t* const buffer = alloc(pages);
    const auto kind_of = [](std::uint64_t page) { return every_kind[Random(page).below(every_kind.size())]; };
    for (std::uint64_t i = 0; i < pages; ++i) fill_page(buffer + i * page_bytes, kind_of(i), i);
    for (int round = 0; round < 3; ++round) {
        demote(buffer, pages);
        for (std::uint64_t i = pages; i-- > 0;) {
            EXPECT_TRUE(page_is(buffer + i * page_bytes, kind_of(i), i)) << i;
        }
    }
}

TEST_P(Codec, KeepsAWriteOfOneByte) {
    options_.codec = GetParam();
    open_heap();
    constexpr std::uint64_t pages = 16;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (std::uint64_t i = 0; i < pages; ++i) {
        make_far(buffer, pages);
        buffer[i * page_bytes + i] ^= 0xff;
        make_far(buffer, pages);
        buffer[i * page_bytes + i] ^= 0xff;
        EXPECT_TRUE(page_is(buffer + i * page_bytes, Kind::text, 1 + i)) << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Every, Codec,
                         ::testing::Values("lz4", "zstd", "zstd:1", "zstd:9", "deflate", "iaa", "iaa:model"),
                         [](const auto& suite) {
                             std::string name = suite.param;
                             std::replace(name.begin(), name.end(), ':', '_');
                             return name;
                         });

class Pages : public HeapTest {};
class CalmPages : public HeapTest {};
class InlinePages : public HeapTest {};

TEST_F(CalmPages, PassThroughTheirStates) {
    open_heap();
    constexpr std::uint64_t pages = 32;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(pages_in_state(buffer, pages, PN_PAGE_FAR), 0u);

    make_far(buffer, pages);
    EXPECT_EQ(pages_in_state(buffer, pages, PN_PAGE_FAR), pages);
    const pn_stats_t far = stats();
    EXPECT_EQ(far.far_logical_bytes, pages * page_bytes);
    EXPECT_EQ(far.demotions, pages);
    EXPECT_GT(far.far_bytes, 0u);
    EXPECT_LT(far.far_bytes, pages * page_bytes);

    EXPECT_TRUE(page_is(buffer + 5 * page_bytes, Kind::text, 6));
    EXPECT_TRUE(eventually([&] { return states(buffer, pages)[5] == PN_PAGE_NEAR; }));
    ASSERT_EQ(pn_promote(heap_, buffer, pages * page_bytes), 0);
    expect_near(buffer, pages);
    EXPECT_TRUE(eventually([&] { return stats().promotions == pages; })) << stats().promotions;
    EXPECT_EQ(stats().far_logical_bytes, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(CalmPages, QueryNeverFaults) {
    open_heap();
    constexpr std::uint64_t pages = 16;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    const std::uint64_t faults = stats().faults;
    for (int i = 0; i < 10; ++i) EXPECT_EQ(pages_in_state(buffer, pages, PN_PAGE_FAR), pages);
    EXPECT_EQ(stats().faults, faults);
}

TEST_F(CalmPages, CostNothingBeforeAnythingIsTakenOut) {
    open_heap();
    constexpr std::uint64_t pages = 1024;
    alloc_filled(pages, Kind::text, 1);
    std::uint8_t* const untouched = alloc(pages);
    EXPECT_EQ(wrong_pages(untouched, pages, Kind::zeros, 0), 0u);
    EXPECT_EQ(stats().faults, 0u);
    EXPECT_EQ(stats().demotions, 0u);
}

TEST_F(CalmPages, FoundZeroBecomeFresh) {
    open_heap();
    constexpr std::uint64_t pages = 32;
    std::uint8_t* const buffer = alloc(pages);
    std::memset(buffer, 0, pages * page_bytes);
    make_far(buffer, pages);
    EXPECT_EQ(pages_in_state(buffer, pages, PN_PAGE_FRESH), pages);
    const pn_stats_t after = stats();
    EXPECT_EQ(after.far_logical_bytes, 0u);
    EXPECT_EQ(after.demotions, 0u);
    EXPECT_EQ(after.demotions_zero, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::zeros, 0), 0u);
    fill_pages(buffer, pages, Kind::text, 1);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(CalmPages, IncompressibleStayNear) {
    open_heap();
    constexpr std::uint64_t pages = 32;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::random, 1);
    EXPECT_EQ(demote(buffer, pages), 0u);
    EXPECT_EQ(pages_in_state(buffer, pages, PN_PAGE_FAR), 0u);
    EXPECT_EQ(stats().incompressible, pages);
    EXPECT_EQ(stats().far_logical_bytes, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::random, 1), 0u);
    fill_pages(buffer, pages, Kind::text, 1);  // compressible from now on
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(CalmPages, SameFilledTakeHardlyAnyRoom) {
    open_heap();
    constexpr std::uint64_t pages = 1024;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::same, 1);
    make_far(buffer, pages);
    EXPECT_LE(stats().far_bytes, pages * page_bytes / 16);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::same, 1), 0u);
}

TEST_F(CalmPages, UnchangedAreDroppedByTheirKeptBlobs) {
    open_heap();
    constexpr std::uint64_t pages = 64;
    constexpr std::uint64_t rounds = 4;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (std::uint64_t i = 0; i <= rounds; ++i) {
        make_far(buffer, pages);
        ASSERT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    }
    // Each was compressed once. (A handler's message that was answered late may bring one near for nobody,
    // and then it leaves once more.)
    const pn_stats_t after = stats();
    EXPECT_EQ(after.demotions - after.demotions_unchanged, pages);
    EXPECT_GE(after.demotions_unchanged, rounds * pages);
    EXPECT_GT(after.kept_blob_bytes, 0u);

    buffer[0] ^= 0xff;
    make_far(buffer, pages);
    EXPECT_EQ(stats().demotions - stats().demotions_unchanged, pages + 1);
    EXPECT_EQ(wrong_pages(buffer + page_bytes, pages - 1, Kind::text, 2), 0u);
}

void overwrite(std::uint8_t* buffer, std::uint64_t pages, std::uint8_t byte) {
    for (std::uint64_t page = 0; page < pages; ++page)
        *const_cast<volatile std::uint8_t*>(buffer + page * page_bytes) = byte;
}

std::uint64_t pages_that_begin_otherwise(const std::uint8_t* buffer, std::uint64_t pages, std::uint8_t byte) {
    std::uint64_t wrong = 0;
    for (std::uint64_t page = 0; page < pages; ++page) {
        PageImage image = page_image(Kind::text, 1 + page);
        image[0] = byte;
        wrong += std::memcmp(buffer + page * page_bytes, image.data(), page_bytes) == 0 ? 0 : 1;
    }
    return wrong;
}

// What a written page was before is of no use to anybody.
TEST_F(CalmPages, APageThatIsWrittenToAtOnceKeepsNoBlob) {
    open_heap();
    constexpr std::uint64_t pages = 64;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    std::uint64_t stayed = make_far(buffer, pages);
    overwrite(buffer, pages, 0xee);
    EXPECT_EQ(stats().kept_blob_bytes, 0u);
    stayed += make_far(buffer, pages);
    EXPECT_LE(stats().demotions_unchanged, stayed);
    EXPECT_EQ(pages_that_begin_otherwise(buffer, pages, 0xee), 0u);
}

TEST_F(InlinePages, TheFirstWriteDropsTheBlob) {
    open_heap();
    constexpr std::uint64_t pages = 64;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    std::uint64_t stayed = make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_GT(stats().kept_blob_bytes, 0u);
    overwrite(buffer, pages, 0xee);
    EXPECT_EQ(stats().kept_blob_bytes, 0u);
    stayed += make_far(buffer, pages);
    EXPECT_LE(stats().demotions_unchanged, stayed);
    EXPECT_EQ(pages_that_begin_otherwise(buffer, pages, 0xee), 0u);
}

// Which may have been put in place so that the first write is noticed: each one is.
TEST_F(Pages, WritesAfterReadsAreNeverDropped) {
    open_heap();
    constexpr std::uint64_t pages = 96;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (std::uint64_t round = 0; round < 8; ++round) {
        demote(buffer, pages);
        ASSERT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);  // all read
        for (std::uint64_t page = round % 3; page < pages; page += 3) {
            std::uint8_t* const at = buffer + page * page_bytes;
            std::uint8_t image[page_bytes];
            std::memcpy(image, at, page_bytes);
            at[page_bytes - 1] ^= 0xff;  // and now written to
            demote(at, 1);
            image[page_bytes - 1] ^= 0xff;
            ASSERT_EQ(std::memcmp(at, image, page_bytes), 0) << "round " << round << ", page " << page;
            at[page_bytes - 1] ^= 0xff;
        }
    }
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

// The kernel's own write raises no fault of the program's: EFAULT, where it met a page that is watched for
// writes.
TEST_F(CalmPages, TheKernelMayWriteToPromotedAndPinnedPagesThatWereOnlyRead) {
    open_heap();
    constexpr std::uint64_t pages = 16;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    ASSERT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    ASSERT_EQ(pn_promote(heap_, buffer, pages / 2 * page_bytes), 0);
    ASSERT_EQ(pn_pin(heap_, buffer + pages / 2 * page_bytes, pages / 2 * page_bytes), 0);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    for (std::uint64_t page = 0; page < pages; ++page) {
        const std::uint8_t byte = buffer[page * page_bytes] ^ 0xff;
        ASSERT_EQ(write(ends[1], &byte, 1), 1);
        ASSERT_EQ(read(ends[0], buffer + page * page_bytes, 1), 1) << "page " << page << ": errno " << errno;
        EXPECT_EQ(buffer[page * page_bytes], byte);
    }
    close(ends[0]);
    close(ends[1]);
    EXPECT_EQ(pn_unpin(heap_, buffer + pages / 2 * page_bytes, pages / 2 * page_bytes), 0);
    make_far(buffer, pages);
    for (std::uint64_t page = 0; page < pages; ++page) buffer[page * page_bytes] ^= 0xff;
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Pages, DemotingTwiceAndPromotingTwiceIsNoError) {
    open_heap();
    constexpr std::uint64_t pages = 16;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    make_far(buffer, pages);
    EXPECT_EQ(pn_promote(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(pn_promote(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Pages, PartOfABufferCanBeDemoted) {
    open_heap();
    constexpr std::uint64_t pages = 32;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer + 7 * page_bytes, 1);
    make_far(buffer + 20 * page_bytes, 3);
    EXPECT_EQ(pn_demote(heap_, buffer + 31 * page_bytes, page_bytes, nullptr), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Pages, UntouchedCanBeDemotedPromotedPinnedAndReleased) {
    open_heap();
    constexpr std::uint64_t pages = 64;
    std::uint8_t* const buffer = alloc(pages);
    make_far(buffer, pages);
    EXPECT_EQ(pn_promote(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(pn_pin(heap_, buffer, pages * page_bytes), 0);
    expect_near(buffer, pages);
    EXPECT_EQ(pn_unpin(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(pn_release(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::zeros, 0), 0u);
    fill_pages(buffer, pages, Kind::text, 1);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Pages, ReleasedReadAsZerosNearAndFar) {
    open_heap();
    constexpr std::uint64_t pages = 24;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages / 2);
    ASSERT_EQ(pn_release(heap_, buffer + 4 * page_bytes, 16 * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer, 4, Kind::text, 1), 0u);
    EXPECT_EQ(wrong_pages(buffer + 4 * page_bytes, 16, Kind::zeros, 0), 0u);
    EXPECT_EQ(wrong_pages(buffer + 20 * page_bytes, 4, Kind::text, 21), 0u);
    EXPECT_GE(stats().released_pages, 8u);  // at least those that were far
    fill_pages(buffer, pages, Kind::half, 1);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 1), 0u);
}

// By a program that does not tell us: neither the shield nor a sanitizer's mlock() has a part in it.
TEST_F(CalmPages, LockedByTheKernelStayNear) {
    open_heap();
    constexpr std::uint64_t pages = 16;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    std::uint8_t* const locked = buffer + 5 * page_bytes;
    ASSERT_EQ(syscall(SYS_mlock, locked, 2 * page_bytes), 0);
    const std::uint64_t refused = stats().refused_pinned;
    EXPECT_TRUE(eventually([&] { return demote(buffer, pages) == pages - 2; }));
    expect_near(locked, 2);
    EXPECT_GE(stats().refused_pinned, refused + 2);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    ASSERT_EQ(syscall(SYS_munlock, locked, 2 * page_bytes), 0);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(CalmPages, ReleasedGiveTheirRoomBack) {
    open_heap();
    constexpr std::uint64_t pages = 4096;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    const std::uint64_t far = stats().far_bytes;
    ASSERT_EQ(pn_release(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(stats().far_logical_bytes, 0u);
    EXPECT_EQ(stats().near_bytes, 0u);
    // A store may hold on to a few empty slabs, and gives the others back in its own time.
    EXPECT_TRUE(eventually([&] { return stats().far_bytes < far / 4; })) << stats().far_bytes;
    EXPECT_EQ(stats().released_pages, pages);
    EXPECT_EQ(pages_in_state(buffer, pages, PN_PAGE_FRESH), pages);
}

class Pin : public HeapTest {};

TEST_F(Pin, HoldsPagesNearUntilAsManyUnpins) {
    open_heap();
    constexpr std::uint64_t pages = 16;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    ASSERT_EQ(pn_pin(heap_, buffer, 4 * page_bytes), 0);
    ASSERT_EQ(pn_pin(heap_, buffer + 2 * page_bytes, 2 * page_bytes), 0);
    EXPECT_EQ(stats().pinned_bytes, 4 * page_bytes);
    EXPECT_EQ(demote(buffer, pages), pages - 4);
    expect_near(buffer, 4);

    ASSERT_EQ(pn_unpin(heap_, buffer, 4 * page_bytes), 0);
    EXPECT_EQ(stats().pinned_bytes, 2 * page_bytes);
    EXPECT_EQ(demote(buffer, pages), pages - 2);
    expect_near(buffer + 2 * page_bytes, 2);

    ASSERT_EQ(pn_unpin(heap_, buffer + 2 * page_bytes, 2 * page_bytes), 0);
    EXPECT_EQ(stats().pinned_bytes, 0u);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Pin, CountsTo255) {
    open_heap();
    constexpr std::uint64_t pages = 3;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    std::uint8_t* const middle = buffer + page_bytes;
    for (int i = 0; i < 255; ++i) ASSERT_EQ(pn_pin(heap_, middle, page_bytes), 0) << i;
    EXPECT_EQ(pn_pin(heap_, middle, page_bytes), EAGAIN);
    EXPECT_EQ(pn_pin(heap_, buffer, pages * page_bytes), EAGAIN);  // all or nothing
    EXPECT_EQ(stats().pinned_bytes, page_bytes);
    EXPECT_EQ(pn_unpin(heap_, buffer, page_bytes), EINVAL);
    for (int i = 0; i < 255; ++i) ASSERT_EQ(pn_unpin(heap_, middle, page_bytes), 0) << i;
    EXPECT_EQ(pn_unpin(heap_, middle, page_bytes), EINVAL);
    EXPECT_EQ(stats().pinned_bytes, 0u);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_F(Pin, IsNotUndoneInPart) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(4, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer, 2 * page_bytes), 0);
    EXPECT_EQ(pn_unpin(heap_, buffer, 4 * page_bytes), EINVAL);
    EXPECT_EQ(stats().pinned_bytes, 2 * page_bytes);
    EXPECT_EQ(pn_unpin(heap_, buffer, 2 * page_bytes), 0);
}

TEST_F(Pin, CannotPassTheNearLimit) {
    options_.near_bytes_max = 2 * mib;
    open_heap();
    constexpr std::uint64_t pages = 4 * mib / page_bytes;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(pn_pin(heap_, buffer, pages * page_bytes), ENOMEM);
    EXPECT_EQ(stats().pinned_bytes, 0u);
    EXPECT_EQ(pn_unpin(heap_, buffer, page_bytes), EINVAL);
    ASSERT_EQ(pn_pin(heap_, buffer, mib), 0);
    EXPECT_EQ(pn_pin(heap_, buffer + mib, 2 * mib), ENOMEM);
    EXPECT_EQ(stats().pinned_bytes, mib);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    expect_near(buffer, mib / page_bytes);
    EXPECT_EQ(pn_unpin(heap_, buffer, mib), 0);
}

TEST_F(Pin, AgainCountsOnce) {
    options_.near_bytes_max = 2 * mib;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(2 * mib / page_bytes, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer, 3 * mib / 2), 0);
    ASSERT_EQ(pn_pin(heap_, buffer, 3 * mib / 2), 0);
    EXPECT_EQ(stats().pinned_bytes, 3 * mib / 2);
    EXPECT_EQ(pn_unpin(heap_, buffer, 3 * mib / 2), 0);
    EXPECT_EQ(pn_unpin(heap_, buffer, 3 * mib / 2), 0);
}

TEST_F(Pin, StaysWhenContentsAreReleased) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(4, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer, 4 * page_bytes), 0);
    ASSERT_EQ(pn_release(heap_, buffer, 4 * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer, 4, Kind::zeros, 0), 0u);
    EXPECT_EQ(stats().pinned_bytes, 4 * page_bytes);
    fill_pages(buffer, 4, Kind::text, 9);
    EXPECT_EQ(demote(buffer, 4), 0u);
    EXPECT_EQ(wrong_pages(buffer, 4, Kind::text, 9), 0u);
    EXPECT_EQ(pn_unpin(heap_, buffer, 4 * page_bytes), 0);
}

}  // namespace
}  // namespace pnode::test
