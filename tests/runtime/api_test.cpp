// Buffers and ranges: every bad value is refused with the documented error, and changes nothing.
#include <functional>

#include "tests/runtime/heap_fixture.h"

extern "C" const char* api_c_test(void);

namespace pnode::test {
namespace {

class BufferAlloc : public HeapTest {};

TEST_F(BufferAlloc, FromC) {
    const char* const wrong = api_c_test();
    EXPECT_EQ(wrong, nullptr) << wrong;
}

TEST_F(BufferAlloc, RefusesBadValues) {
    open_heap();
    void* const untouched = this;
    struct {
        std::uint64_t bytes, alignment;
        int error;
    } const cases[] = {
        {0, 0, EINVAL},
        {page_bytes, 3, EINVAL},
        {page_bytes, page_bytes + 1, EINVAL},
        {page_bytes, 3 * page_bytes, EINVAL},
        {page_bytes, UINT64_MAX, EINVAL},
        {0, 3, EINVAL},
        {UINT64_MAX, 0, ENOMEM},
        {UINT64_MAX - page_bytes + 2, 0, ENOMEM},
        {UINT64_MAX / 2, 0, ENOMEM},
        {2 * gib, 0, ENOMEM},
        {page_bytes, std::uint64_t{1} << 63, ENOMEM},
    };
    for (const auto& [bytes, alignment, error] : cases) {
        void* buffer = untouched;
        EXPECT_EQ(pn_buffer_alloc(heap_, bytes, alignment, &buffer), error) << bytes << ' ' << alignment;
        EXPECT_EQ(buffer, untouched);
    }
    EXPECT_EQ(pn_buffer_alloc(heap_, page_bytes, 0, nullptr), EINVAL);
    void* buffer = untouched;
    EXPECT_EQ(pn_buffer_alloc(nullptr, page_bytes, 0, &buffer), EINVAL);
    EXPECT_EQ(buffer, untouched);
    EXPECT_EQ(stats().heap_bytes, 0u);
}

TEST_F(BufferAlloc, AlignsAndZeroFills) {
    open_heap();
    for (const std::uint64_t alignment : {0ul, 1ul, 8ul, 4096ul, 8192ul, 65536ul, 2097152ul, 67108864ul}) {
        void* buffer = nullptr;
        ASSERT_EQ(pn_buffer_alloc(heap_, 3 * page_bytes, alignment, &buffer), 0) << alignment;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer) % std::max(alignment, page_bytes), 0u);
        EXPECT_EQ(wrong_pages(static_cast<std::uint8_t*>(buffer), 3, Kind::zeros, 0), 0u);
    }
}

TEST_F(BufferAlloc, RoundsUpToPages) {
    open_heap();
    void* buffer = nullptr;
    ASSERT_EQ(pn_buffer_alloc(heap_, page_bytes + 1, 0, &buffer), 0);
    EXPECT_EQ(stats().heap_bytes, 2 * page_bytes);
    fill_pages(static_cast<std::uint8_t*>(buffer), 2, Kind::text, 1);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, page_bytes + 1), 0);
    EXPECT_EQ(stats().heap_bytes, 0u);
}

TEST_F(BufferAlloc, ReusesAddressSpaceAsZeros) {
    options_.address_bytes_max = 4 * mib;
    open_heap();
    const std::uint64_t pages = 2 * mib / page_bytes;
    for (std::uint64_t round = 0; round < 8; ++round) {
        std::uint8_t* const buffer = alloc(pages);
        ASSERT_NE(buffer, nullptr);
        ASSERT_EQ(wrong_pages(buffer, pages, Kind::zeros, 0), 0u);
        fill_pages(buffer, pages, Kind::text, round);
        make_far(buffer, pages / 2);
        ASSERT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
    }
    EXPECT_EQ(stats().far_logical_bytes, 0u);
    // The evictor may have pages in its hands that are given back only when it lays them down.
    EXPECT_TRUE(eventually([&] { return stats().near_bytes == 0; }));
}

TEST_F(BufferAlloc, EndsWhenAddressSpaceDoes) {
    options_.address_bytes_max = 4 * mib;
    open_heap();
    std::vector<std::uint8_t*> buffers;
    void* buffer = nullptr;
    int error = 0;
    while (buffers.size() <= 8 && (error = pn_buffer_alloc(heap_, mib, 0, &buffer)) == 0) {
        buffers.push_back(static_cast<std::uint8_t*>(buffer));
        fill_page(buffers.back(), Kind::text, buffers.size());
    }
    EXPECT_EQ(error, ENOMEM);
    ASSERT_GE(buffers.size(), 3u);  // a heap may keep a little for itself
    ASSERT_LE(buffers.size(), 8u);
    for (std::size_t i = 0; i < buffers.size(); ++i) EXPECT_TRUE(page_is(buffers[i], Kind::text, i + 1));
    ASSERT_EQ(pn_buffer_free(heap_, buffers[1], mib), 0);
    EXPECT_EQ(pn_buffer_alloc(heap_, mib, 0, &buffer), 0);
    EXPECT_TRUE(page_is(buffer, Kind::zeros, 0));
}

class Range : public HeapTest {
  protected:
    using Call = std::function<int(pn_heap*, void*, std::uint64_t)>;
    struct Named {
        const char* name;
        Call call;
    };
    static const std::vector<Named>& every_call() {
        static const std::vector<Named> calls = {
            {"free", pn_buffer_free},
            {"release", pn_release},
            {"demote", [](pn_heap* h, void* a, std::uint64_t b) { return pn_demote(h, a, b, nullptr); }},
            {"promote", pn_promote},
            {"pin", pn_pin},
            {"unpin", pn_unpin},
            {"query",
             [](pn_heap* h, void* a, std::uint64_t b) {
                 std::uint8_t states[64] = {};
                 return pn_query(h, a, b, states);
             }},
        };
        return calls;
    }
    // Every call refuses the range, and none of the figures that tell of the pages has moved.
    void expect_refused(const char* what, void* address, std::uint64_t bytes) {
        for (const Named& each : every_call()) {
            EXPECT_EQ(each.call(heap_, address, bytes), EINVAL) << each.name << ": " << what;
        }
    }
};

TEST_F(Range, RefusesWhatIsNoneOfTheHeaps) {
    open_heap();
    constexpr std::uint64_t pages = 8;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer, pages * page_bytes), 0);
    alignas(4096) static std::uint8_t foreign[2 * page_bytes];

    expect_refused("null", nullptr, page_bytes);
    expect_refused("misaligned", buffer + 1, page_bytes);
    expect_refused("misaligned by a word", buffer + page_bytes / 2, page_bytes);
    expect_refused("not this heap's", foreign, page_bytes);
    expect_refused("over the end", buffer, (pages + 1) * page_bytes);
    expect_refused("over the end from the last page", buffer + (pages - 1) * page_bytes, 2 * page_bytes);
    expect_refused("behind the end", buffer + pages * page_bytes, page_bytes);
    expect_refused("before the start", buffer - page_bytes, 2 * page_bytes);
    expect_refused("no bytes", buffer, 0);
    expect_refused("overflow", buffer, UINT64_MAX);
    expect_refused("overflow to the start", buffer, std::uint64_t{0} - page_bytes);
    expect_refused("absurd", buffer, std::uint64_t{1} << 62);

    const pn_stats_t after = stats();
    EXPECT_EQ(after.heap_bytes, pages * page_bytes);
    EXPECT_EQ(after.pinned_bytes, pages * page_bytes);
    EXPECT_EQ(after.released_pages, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_unpin(heap_, buffer, pages * page_bytes), 0);
    std::fill(std::begin(foreign), std::end(foreign), std::uint8_t{0});
}

TEST_F(Range, RefusesNoHeapAndNoOutput) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(2, Kind::text, 1);
    for (const Named& each : every_call()) {
        EXPECT_EQ(each.call(nullptr, buffer, page_bytes), EINVAL) << each.name;
    }
    EXPECT_EQ(pn_query(heap_, buffer, page_bytes, nullptr), EINVAL);
    EXPECT_EQ(wrong_pages(buffer, 2, Kind::text, 1), 0u);
}

TEST_F(Range, RefusesAnotherHeapsPages) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(2, Kind::text, 1);
    pn_heap* other = nullptr;
    ASSERT_EQ(pn_heap_open(&options_, &other), 0) << pn_last_message();
    for (const Named& each : every_call()) {
        EXPECT_EQ(each.call(other, buffer, page_bytes), EINVAL) << each.name;
    }
    EXPECT_EQ(pn_heap_close(other), 0);
    EXPECT_EQ(wrong_pages(buffer, 2, Kind::text, 1), 0u);
}

TEST_F(Range, RefusesWhatWasFreed) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(8, Kind::text, 1);
    std::uint8_t* const neighbour = alloc_filled(8, Kind::text, 100);
    ASSERT_EQ(pn_buffer_free(heap_, buffer, 8 * page_bytes), 0);
    expect_refused("freed", buffer, 8 * page_bytes);
    expect_refused("a page of what was freed", buffer + 4 * page_bytes, page_bytes);
    EXPECT_EQ(wrong_pages(neighbour, 8, Kind::text, 100), 0u);
    EXPECT_EQ(stats().heap_bytes, 8 * page_bytes);
}

TEST_F(Range, RestStaysWhenPagesAreFreed) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(12, Kind::text, 1);
    make_far(buffer + 4 * page_bytes, 2);
    ASSERT_EQ(pn_buffer_free(heap_, buffer + 4 * page_bytes, 4 * page_bytes), 0);
    EXPECT_EQ(stats().heap_bytes, 8 * page_bytes);
    expect_refused("across the hole", buffer, 12 * page_bytes);
    expect_refused("the hole", buffer + 4 * page_bytes, page_bytes);
    EXPECT_EQ(wrong_pages(buffer, 4, Kind::text, 1), 0u);
    EXPECT_EQ(wrong_pages(buffer + 8 * page_bytes, 4, Kind::text, 9), 0u);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, 4 * page_bytes), 0);
    EXPECT_EQ(pn_buffer_free(heap_, buffer + 8 * page_bytes, 4 * page_bytes), 0);
    EXPECT_EQ(stats().heap_bytes, 0u);
}

TEST_F(Range, PinnedPagesAreNotFreed) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(8, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer + 3 * page_bytes, page_bytes), 0);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, 8 * page_bytes), EBUSY);
    EXPECT_EQ(stats().heap_bytes, 8 * page_bytes);
    EXPECT_EQ(wrong_pages(buffer, 8, Kind::text, 1), 0u);
    ASSERT_EQ(pn_unpin(heap_, buffer + 3 * page_bytes, page_bytes), 0);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, 8 * page_bytes), 0);
}

}  // namespace
}  // namespace pnode::test
