// An accelerator for a codec: its model compresses what is demoted, software does what it cannot, and a
// machine without one loses nothing.
#include "tests/runtime/child_process.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class Offload : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 96;

    void open_with(const char* codec) {
        options_.codec = codec;
        open_heap();
    }
    std::string json() {
        std::string text(8192, '\0');
        EXPECT_EQ(pn_stats_json(heap_, text.data(), text.size()), 0);
        return text.substr(0, text.find('\0'));
    }
    std::uint64_t accelerated() { return stats().accelerator_pages; }
};

TEST_F(Offload, PagesAreCompressedByTheModelAndReadBack) {
    open_with("iaa:model");
    EXPECT_EQ(stats().accelerator_queues, 1u);
    const std::uint64_t before = accelerated();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    EXPECT_GT(accelerated() + stats().accelerator_fallbacks, before);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_NE(json().find("\"codec\": \"iaa:model\""), std::string::npos);
    EXPECT_NE(json().find("\"fallbacks\": {"), std::string::npos);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
}

TEST_F(Offload, WithoutADeviceSoftwareDoesItAndSaysSo) {
    open_with("iaa");
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    const pn_stats_t after = stats();
    EXPECT_GT(after.accelerator_pages + after.accelerator_fallbacks, 0u);
    if (after.accelerator_queues == 0) {
        EXPECT_EQ(after.accelerator_pages, 0u);
        EXPECT_NE(json().find("\"no_queue\""), std::string::npos);
    }
    EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
}

TEST_F(Offload, OtherCodecsHaveNoAccelerator) {
    open_with("deflate");
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    EXPECT_EQ(stats().accelerator_queues, 0u);
    EXPECT_EQ(stats().accelerator_fallbacks, 0u);
    EXPECT_EQ(json().find("fallbacks\": {"), std::string::npos);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
}

TEST_F(Offload, AForkedChildOpensOneOfItsOwn) {
    if (thread_sanitized)
        GTEST_SKIP() << "ThreadSanitizer cannot follow threads that are started after a fork";
    open_with("iaa:model");
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    const Verdict verdict = verdict_of_child([&] {
        if (wrong_pages(buffer, pages, Kind::text, 1) != 0) return Verdict::wrong_bytes;
        if (stats().accelerator_queues != 1) return Verdict::wrong_state;
        const std::uint64_t before = stats().accelerator_pages + stats().accelerator_fallbacks;
        fill_pages(buffer, pages, Kind::text, 2);
        if (pn_demote(heap_, buffer, pages * page_bytes, nullptr) != 0) return Verdict::call_failed;
        if (stats().accelerator_pages + stats().accelerator_fallbacks == before) return Verdict::wrong_state;
        return wrong_pages(buffer, pages, Kind::text, 2) == 0 ? Verdict::good : Verdict::wrong_bytes;
    });
    EXPECT_EQ(verdict, Verdict::good);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
}

}  // namespace
}  // namespace pnode::test
