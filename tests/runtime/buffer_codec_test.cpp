// Buffers with a codec of their own, in a heap that has another.
#include <array>

#include "runtime/handles.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class BufferCodec : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 512;

    int set(void* buffer, const char* codec, std::uint64_t count = pages) {
        return pn_buffer_set_codec(heap_, buffer, count * page_bytes, codec);
    }
};
class CalmBufferCodec : public BufferCodec {
  protected:
    // Of the blobs themselves: what slabs they lie in changes as the evictor packs.
    std::uint64_t blob_bytes() const { return heap_->heap.far.store()->counters().blob_bytes; }
    // What the same pages take when they are far.
    std::uint64_t blob_bytes_by(const char* codec) {
        open_heap();
        const std::uint64_t bytes = blob_bytes_here(codec);
        EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
        return bytes;
    }
    std::uint64_t blob_bytes_here(const char* codec) {
        std::uint8_t* const buffer = alloc(pages);
        EXPECT_EQ(set(buffer, codec), 0);
        fill_pages(buffer, pages, Kind::text, 1);
        make_far(buffer, pages);
        const std::uint64_t bytes = blob_bytes();
        EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
        return bytes;
    }
};

TEST_F(CalmBufferCodec, IsWhatItsPagesAreCompressedBy) {
    const std::uint64_t by_lz4 = blob_bytes_by("lz4");
    EXPECT_EQ(blob_bytes_by(nullptr), by_lz4);
    EXPECT_EQ(blob_bytes_by(""), by_lz4);
    EXPECT_LT(blob_bytes_by("zstd:19"), by_lz4);
    EXPECT_LT(blob_bytes_by("deflate"), by_lz4);
    options_.codec = "zstd:19";
    EXPECT_EQ(blob_bytes_by("lz4"), by_lz4);
}

TEST_F(CalmBufferCodec, EndsWithTheBuffer) {
    const std::uint64_t by_lz4 = blob_bytes_by("lz4");
    open_heap();
    std::uint8_t* const former = alloc(pages);
    ASSERT_EQ(set(former, "zstd:19"), 0);
    ASSERT_EQ(pn_buffer_free(heap_, former, pages * page_bytes), 0);
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_EQ(buffer, former);
    make_far(buffer, pages);
    EXPECT_EQ(blob_bytes(), by_lz4);
}

// Every page its own, changed at any time, whatever the page is doing.
TEST_F(BufferCodec, MayChangeFromPageToPageAndAtAnyTime) {
    options_.near_bytes_max = 4 * mib;
    open_heap();
    constexpr std::uint64_t many = 2048;
    constexpr std::array<const char*, 6> codecs = {nullptr, "lz4", "zstd", "zstd:1", "zstd:19", "deflate"};
    std::uint8_t* const buffer = alloc_filled(many, Kind::text, 0);
    std::vector<std::uint64_t> seeds(many);
    for (std::uint64_t page = 0; page < many; ++page) seeds[page] = page;
    Random random(1);
    std::uint64_t wrong = 0;
    for (std::uint64_t act = 0; act < 2 * many; ++act) {
        const std::uint64_t page = random.below(many);
        std::uint8_t* const at = buffer + page * page_bytes;
        ASSERT_EQ(set(at, codecs[random.below(codecs.size())], 1), 0);
        wrong += page_is(at, Kind::text, seeds[page]) ? 0 : 1;
        if (random.below(2) == 0) fill_page(at, Kind::text, seeds[page] = many + act);
        if (random.below(8) == 0) {
            EXPECT_EQ(pn_demote(heap_, at, page_bytes, nullptr), 0);
        }
    }
    for (std::uint64_t page = 0; page < many; ++page)
        wrong += page_is(buffer + page * page_bytes, Kind::text, seeds[page]) ? 0 : 1;
    EXPECT_EQ(wrong, 0u);
}

TEST_F(CalmBufferCodec, IsNotMadeSmallerInTheBackground) {
    for (const char* const codec : {"auto:100:6", "auto:100:6,16K"}) {
        options_.codec = codec;
        open_heap();
        // They are first in the heap, and longest far: whoever made them smaller would begin with them.
        std::uint8_t* const own = alloc_filled(8 * pages, Kind::text, 1);
        ASSERT_EQ(set(own, "lz4", 8 * pages), 0);
        constexpr std::uint64_t others = pages / 4;
        std::uint8_t* const other = alloc_filled(others, Kind::text, 5000);
        make_far(own, 8 * pages);
        make_far(other, others);
        EXPECT_TRUE(eventually([&] { return stats().recompressed >= others / 2; }));
        // Time for what must not happen; a page may be made anew with a better dictionary, or in a block.
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        EXPECT_LE(stats().recompressed, 2 * others);
        EXPECT_EQ(wrong_pages(own, 8 * pages, Kind::text, 1), 0u);
        EXPECT_EQ(wrong_pages(other, others, Kind::text, 5000), 0u);
        EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    }
}

// Every second page has its own codec: no four neighbours can be compressed together.
TEST_F(CalmBufferCodec, JoinsNoBlock) {
    options_.codec = "auto:100:6,16K";
    open_heap();
    constexpr std::uint64_t many = 4 * pages;
    std::uint8_t* const buffer = alloc_filled(many, Kind::text, 1);
    for (std::uint64_t page = 0; page < many; page += 2)
        ASSERT_EQ(set(buffer + page * page_bytes, "lz4", 1), 0);
    make_far(buffer, many);
    EXPECT_TRUE(eventually([&] { return stats().recompressed >= many / 4; }));
    EXPECT_EQ(stats().blocks_16k, 0u);
    EXPECT_EQ(wrong_pages(buffer, many, Kind::text, 1), 0u);
}

TEST_F(BufferCodec, RefusesWhatItCannotBe) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (const char* const bad : {"auto", "auto:5", "lz4,dict", "zstd:3,dict", "lz4,16K", "iaa", "iaa:model",
                                  "device", "zstd:0", "zstd:99", "zstd:", "LZ4", "same", " "})
        EXPECT_EQ(set(buffer, bad), EINVAL) << bad;
    EXPECT_EQ(pn_buffer_set_codec(nullptr, buffer, page_bytes, "lz4"), EINVAL);
    EXPECT_EQ(pn_buffer_set_codec(heap_, buffer + 1, page_bytes, "lz4"), EINVAL);
    EXPECT_EQ(pn_buffer_set_codec(heap_, buffer, 0, "lz4"), EINVAL);
    EXPECT_EQ(pn_buffer_set_codec(heap_, buffer, 2 * pages * page_bytes, "lz4"), EINVAL);
    int local = 0;
    EXPECT_EQ(pn_buffer_set_codec(heap_, &local, page_bytes, "lz4"), EINVAL);
}

TEST_F(BufferCodec, SevenAreRoomFor) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (const char* const codec : {"zstd:1", "zstd:2", "zstd:3", "zstd:4", "zstd:5", "zstd:6", "lz4"})
        EXPECT_EQ(set(buffer, codec), 0) << codec;
    EXPECT_EQ(set(buffer, "deflate"), ENOSPC);
    EXPECT_EQ(set(buffer, "zstd:2"), 0);
    EXPECT_EQ(set(buffer, nullptr), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

// Contents move, codecs stay with the addresses.
TEST_F(BufferCodec, StaysWhereItIsWhenContentsMove) {
    open_heap();
    std::uint8_t* const from = alloc_filled(pages, Kind::text, 1);
    std::uint8_t* const to = alloc(pages);
    ASSERT_EQ(set(from, "zstd"), 0);
    make_far(from, pages);
    ASSERT_EQ(pn_relocate(heap_, from, to, pages * page_bytes), 0);
    EXPECT_EQ(wrong_pages(to, pages, Kind::text, 1), 0u);
    make_far(to, pages);
    EXPECT_EQ(wrong_pages(to, pages, Kind::text, 1), 0u);
}

}  // namespace
}  // namespace pnode::test
