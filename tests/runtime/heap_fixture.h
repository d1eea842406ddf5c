// A heap per test, and what the tests ask of it. Written from pnode.h alone.
//
// Every test runs in four modes (CMakeLists.txt): as it is, with PNODE_HIDE=move, with PNODE_STRESS=1 and
// with the inline engine. Under stress a page may leave at any moment, so a suite whose name begins with
// "Calm" is left out there: it asserts where unpinned pages are, or exact counts. One whose name begins with
// "Handler" is left out with the inline engine, and one with "Inline" without it, and under stress.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <pnode/pnode.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "tests/runtime/page_patterns.h"

namespace pnode::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif
#if defined(__SANITIZE_THREAD__)
inline constexpr bool thread_sanitized = true;
#else
inline constexpr bool thread_sanitized = false;
#endif

inline std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* const text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// The near limit may be overshot by the pages of threads in flight, and by no more than this.
inline constexpr std::uint64_t overshoot_bytes_max = 2 * mib;

// Waits, bounded, until `condition` holds. For what another thread does after it has let us go on, such as
// counting the fault it has just answered; never for time itself.
template <class Condition>
bool eventually(Condition&& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::yield();
    }
    return true;
}

// A heap that is served inline changes over to handler threads. It takes no longer than two seconds to begin
// with it, or it is refused; which says nothing where others have the machine.
template <class Change>
bool changes_in_the_end(Change&& change) {
    constexpr int tries_max = 30;
    for (int tries = 0; tries < tries_max; ++tries)
        if (change()) return true;
    return false;
}

inline constexpr int uffd_user_mode_only = 1;  // UFFD_USER_MODE_ONLY: what everybody is allowed

// Asked of the kernel, not of the runtime: a runtime that wrongly answers EPERM must fail its tests, not skip
// them.
inline bool userfaultfd_allowed(bool user_mode_will_do) {
    const int flags = O_CLOEXEC | (user_mode_will_do ? uffd_user_mode_only : 0);
    int fd = static_cast<int>(syscall(SYS_userfaultfd, flags));
    if (fd < 0) fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (fd < 0) return false;
    close(fd);
    return true;
}

inline bool move_is_hidden() {
    const char* const hidden = std::getenv("PNODE_HIDE");
    return hidden != nullptr && std::string_view(hidden) == "move";
}

// Do pages leave by being moved? The kernel can (6.8), and the mode does not hide it.
inline bool pages_are_moved() {
    constexpr std::uint64_t move = 1 << 16;  // UFFD_FEATURE_MOVE, which older headers lack
    if (move_is_hidden()) return false;
    const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | uffd_user_mode_only));
    uffdio_api api = {.api = UFFD_API, .features = 0, .ioctls = 0};
    const bool can_move = ioctl(fd, UFFDIO_API, &api) == 0 && (api.features & move) != 0;
    close(fd);
    return can_move;
}

// What does not hold among the figures of one snapshot, or nothing. Only for a heap at rest.
inline std::string broken_sum(const pn_stats_t& s) {
    const std::uint64_t far_pages = s.far_logical_bytes / page_bytes;
    if (s.near_bytes + s.far_logical_bytes > s.heap_bytes) return "near + far > heap";
    if (s.near_bytes > s.near_bytes_peak) return "near > its peak";
    if (s.limbo_bytes > s.near_bytes) return "limbo > near";
    if (s.pinned_bytes > s.near_bytes) return "pinned > near";
    if (s.far_bytes > s.far_bytes_max) return "far > far limit";
    if (s.kept_blob_bytes > s.far_bytes) return "kept blobs > far";
    if (s.far_logical_bytes % page_bytes != 0) return "far is not whole pages";
    if (s.promotions + far_pages > s.demotions) return "more pages are or were far than were demoted";
    if (s.demotions > s.promotions + far_pages + s.released_pages) return "demoted pages vanished";
    if (s.demotions_unchanged > s.demotions) return "unchanged demotions > demotions";
    if (s.faults_fresh + s.faults_redundant > s.faults) return "kinds of faults > faults";
    if (s.poisoned != 0) return "a page was poisoned";
    return "";
}

class HeapTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (!userfaultfd_allowed(tests_inline_engine()))
            GTEST_SKIP() << "needs a userfaultfd: sysctl vm.unprivileged_userfaultfd=1";
        options_ = fresh_options();
    }

    void TearDown() override {
        if (heap_ == nullptr) return;
        std::string broken;
        eventually([&] { return (broken = broken_sum(stats())).empty(); });
        EXPECT_EQ(broken, "");
        const char* const unsound = pn_heap_validate(heap_);
        EXPECT_EQ(unsound, nullptr) << unsound;
        EXPECT_EQ(pn_heap_close(heap_), 0);
    }

    // Where pages are not moved, and with the inline engine: the other modes have no flag that changes how
    // they leave.
    static bool tests_pinned_io() { return tests_inline_engine() || move_is_hidden(); }
    static bool tests_inline_engine() {
        const char* const engine = std::getenv("PNODE_TEST_ENGINE");
        return engine != nullptr && std::string_view(engine) == "inline";
    }

    static bool is_stressed() {
        const char* const stress = std::getenv("PNODE_STRESS");
        return stress != nullptr && std::string_view(stress) == "1";
    }

    // Small, active from the first byte on, with no near limit: nothing moves unless the test says so.
    static pn_heap_options fresh_options() {
        pn_heap_options options;
        pn_heap_options_init(&options);
        options.address_bytes_max = gib;
        options.activation_bytes = 0;
        options.node_spec = "memory:256M";
        options.engine = tests_inline_engine() ? PN_ENGINE_INLINE : PN_ENGINE_THREAD;
        if (tests_pinned_io()) options.flags |= PN_HEAP_PINNED_IO;
        return options;
    }

    // Where the kernel can, whatever the mode says. Before open_heap().
    void leave_by_moves() { options_.flags &= ~static_cast<std::uint32_t>(PN_HEAP_PINNED_IO); }
    void open_heap() { ASSERT_EQ(pn_heap_open(&options_, &heap_), 0) << pn_last_message(); }

    // A heap whose pages of text are far, and in whose node more is than leaves room for what near ones would
    // keep (14 of 16 parts), and less than drops what they do (15).
    void open_where_none_is_kept(std::uint64_t pages, std::uint64_t seed, std::uint8_t** buffer) {
        options_.far_bytes_max = 4 * mib;
        open_heap();
        *buffer = alloc_filled(pages, Kind::text, seed);
        make_far(*buffer, pages);
        constexpr std::uint64_t more = 32;
        for (int i = 0; i < 1000 && stats().far_bytes < options_.far_bytes_max / 32 * 29; ++i)
            make_far(alloc_filled(more, Kind::text, seed + pages), more);
    }

    std::uint8_t* alloc(std::uint64_t pages) {
        void* buffer = nullptr;
        EXPECT_EQ(pn_buffer_alloc(heap_, pages * page_bytes, 0, &buffer), 0);
        return static_cast<std::uint8_t*>(buffer);
    }
    // A buffer that holds fill_pages(kind, seed).
    std::uint8_t* alloc_filled(std::uint64_t pages, Kind kind, std::uint64_t seed) {
        std::uint8_t* const buffer = alloc(pages);
        if (buffer != nullptr) fill_pages(buffer, pages, kind, seed);
        return buffer;
    }

    std::uint64_t demote(void* first, std::uint64_t pages) {
        std::uint64_t done = 0;
        EXPECT_EQ(pn_demote(heap_, first, pages * page_bytes, &done), 0);
        return done;
    }
    // For compressible, unpinned pages that nobody else uses: all of them must go. Not always at the first
    // call: the evictor may have some of them in hand, and may have to put them back, or packs the store and
    // moves the blob just made of one that leaves in place. How many stayed then: the latter leave by that
    // blob at the next call.
    std::uint64_t make_far(void* first, std::uint64_t pages) {
        const std::uint64_t stayed = pages - demote(first, pages);
        EXPECT_TRUE(stayed == 0 || eventually([&] { return demote(first, pages) == pages; }));
        return stayed;
    }

    std::vector<std::uint8_t> states(const void* first, std::uint64_t pages) {
        std::vector<std::uint8_t> result(pages, 0xff);
        EXPECT_EQ(pn_query(heap_, first, pages * page_bytes, result.data()), 0);
        return result;
    }
    std::uint64_t pages_in_state(const void* first, std::uint64_t pages, std::uint8_t state) {
        const std::vector<std::uint8_t> all = states(first, pages);
        return static_cast<std::uint64_t>(std::count(all.begin(), all.end(), state));
    }

    // A near page may be busy for the moment in which somebody looks at it.
    void expect_near(const void* first, std::uint64_t pages) {
        EXPECT_TRUE(eventually([&] { return pages_in_state(first, pages, PN_PAGE_NEAR) == pages; }));
    }

    pn_stats_t stats() { return stats_of(heap_); }
    static pn_stats_t stats_of(pn_heap* heap) {
        pn_stats_t result = {};
        result.struct_bytes = sizeof(result);
        result.version = PN_VERSION;
        EXPECT_EQ(pn_stats(heap, &result), 0);
        return result;
    }

    pn_heap_options options_ = {};  // change before open_heap()
    pn_heap* heap_ = nullptr;       // closed by TearDown
};

}  // namespace pnode::test
