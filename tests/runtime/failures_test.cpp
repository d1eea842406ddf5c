// The kernel says no: every call of runtime/os fails once, now and then, or for good, and what comes of it is
// what docs/design.md says. Uses the seam that runtime/os/injection.h offers, and the public API for
// everything else.
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <initializer_list>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/os/injection.h"
#include "runtime/os/signal_actions.h"
#include "runtime/process.h"
#include "tests/runtime/child_process.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

using os::Call;

// What one call does while a test runs.
struct Plan {
    std::atomic<int> error{0};
    std::atomic<unsigned> every{0};      // the n-th, 2n-th, ... call fails; 0: none does
    std::atomic<unsigned> failures{0};   // at most this many in a row of them
    std::atomic<unsigned> pages_max{0};  // partial progress; 0: all
    std::atomic<unsigned> spins{0};      // how long a call takes more
    std::atomic<unsigned> calls{0};
    std::atomic<unsigned> failed{0};
};
std::array<Plan, static_cast<std::size_t>(Call::count)> plans;

Plan& plan_of(Call call) {
    return plans[static_cast<std::size_t>(call)];
}

int inject(Call call, std::size_t* bytes) noexcept {
    Plan& plan = plan_of(call);
    const unsigned number = plan.calls.fetch_add(1) + 1;
    for (unsigned spin = plan.spins.load(); spin > 0; --spin) sched_yield();
    if (const unsigned pages = plan.pages_max.load(); pages != 0 && *bytes > pages * page_bytes)
        *bytes = pages * page_bytes;
    const unsigned every = plan.every.load();
    if (every == 0 || number % every != 0) return 0;
    if (plan.failed.fetch_add(1) >= plan.failures.load()) return 0;
    return plan.error.load();
}

constexpr unsigned for_good = ~0U;

class Failures : public HeapTest {
  protected:
    void SetUp() override {
        HeapTest::SetUp();
        for (Plan& plan : plans) {
            for (auto* const field :
                 {&plan.every, &plan.failures, &plan.pages_max, &plan.spins, &plan.calls, &plan.failed})
                field->store(0);
            plan.error = 0;
        }
        os::injection = inject;
    }
    void TearDown() override {
        os::injection = nullptr;
        HeapTest::TearDown();
    }
    static void fail(Call call, int error, unsigned every = 1, unsigned failures = for_good) {
        Plan& plan = plan_of(call);
        plan.error = error;
        plan.failures = failures;
        plan.calls = 0;
        plan.failed = 0;
        plan.every = every;
    }
    static unsigned failed(Call call) { return call == Call::count ? 0 : plan_of(call).failed.load(); }
    static void mend() {
        for (Plan& plan : plans) plan.every = plan.pages_max = plan.spins = 0;
    }

    // Everything that moves pages, with known bytes; how many pages were wrong.
    std::uint64_t work(std::uint64_t seed) {
        constexpr std::uint64_t pages = 200;
        Random random(seed);
        std::uint8_t* text = alloc_filled(pages, Kind::text, seed);
        std::uint8_t* other = alloc(pages);
        std::uint8_t* const half = alloc_filled(pages, Kind::half, seed);
        if (text == nullptr || other == nullptr || half == nullptr) return pages;
        std::uint64_t wrong = 0;
        for (int round = 0; round < 4; ++round) {
            const std::uint64_t from = random.below(pages / 2);
            pn_demote(heap_, text, pages * page_bytes, nullptr);
            pn_demote(heap_, half + from * page_bytes, (pages - from) * page_bytes, nullptr);
            wrong += wrong_pages(text, pages, Kind::text, seed);
            fill_pages(half, pages / 2, Kind::half, seed);  // changed, so that blobs are replaced
            pn_demote(heap_, half, pages * page_bytes, nullptr);
            EXPECT_EQ(pn_promote(heap_, half, pages * page_bytes), 0);
            const int pinned = pn_pin(heap_, text + from * page_bytes, 8 * page_bytes);
            EXPECT_TRUE(pinned == 0 || pinned == ENOMEM) << pinned;
            wrong += wrong_pages(half, pages, Kind::half, seed);
            if (pinned == 0) {
                EXPECT_EQ(pn_unpin(heap_, text + from * page_bytes, 8 * page_bytes), 0);
            }
            const int relocated = pn_relocate(heap_, text, other, pages * page_bytes);
            EXPECT_TRUE(relocated == 0 || relocated == ENOMEM) << relocated;
            if (relocated == 0) std::swap(text, other);
        }
        wrong += wrong_pages(text, pages, Kind::text, seed);
        EXPECT_EQ(pn_release(heap_, text, pages * page_bytes), 0);
        for (std::uint64_t page = 0; page < pages; ++page)
            wrong += page_is(text + page * page_bytes, Kind::zeros, 0) ? 0 : 1;
        for (std::uint8_t* const buffer : {text, other, half})
            EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
        return wrong;
    }
};

struct Transient {
    Call call;
    int error;
};

// Errors that pass. Each is one that the kernel may give there at any time (ioctl_userfaultfd(2),
// madvise(2)), or wrongly gives for pages that it has moved (userfaultfd.h). That a copy's destination is
// gone (ENOENT, ESRCH) is none: said of a page in limbo that is still there it would be a false answer, and
// nobody keeps the contents of pages that are gone.
TEST_F(Failures, WhatPassesIsInvisible) {
    constexpr Transient errors[] = {
        {Call::copy, EAGAIN},          {Call::copy, ENOMEM},           {Call::move, EAGAIN},
        {Call::move, EBUSY},           {Call::move, ENOMEM},           {Call::move, EINVAL},
        {Call::move, EEXIST},          {Call::count_moved, EEXIST},    {Call::count_moved, EAGAIN},
        {Call::count_moved, EBUSY},    {Call::count_present, ENOENT},  {Call::write_protect, EAGAIN},
        {Call::write_protect, ENOENT}, {Call::read_faults, EINTR},     {Call::read_faults, EAGAIN},
        {Call::drop, EAGAIN},          {Call::drop, EINVAL},           {Call::wait, EINTR},
        {Call::wake, EAGAIN},          {Call::register_range, ENOMEM}, {Call::find_present, EAGAIN},
        {Call::populate, EAGAIN},      {Call::read_ranges, EFAULT},
    };
    open_heap();
    std::uint64_t seed = 1;
    for (const Transient& transient : errors) {
        for (const unsigned every : {2U, 5U}) {
            SCOPED_TRACE(std::to_string(static_cast<int>(transient.call)) + " " +
                         strerrorname_np(transient.error));
            fail(transient.call, transient.error, every);
            EXPECT_EQ(work(++seed), 0u);
            mend();
            const char* const unsound = pn_heap_validate(heap_);
            ASSERT_EQ(unsound, nullptr) << unsound;
        }
    }
}

TEST_F(Failures, LittleIsDoneAtATime) {
    open_heap();
    for (const unsigned pages : {1U, 2U, 5U}) {
        plan_of(Call::move).pages_max = pages;
        plan_of(Call::copy).pages_max = pages;
        EXPECT_EQ(work(pages), 0u);
    }
}

// All are moved, and it says fewer.
TEST_F(Failures, MoreWasMovedThanTheKernelCounts) {
    leave_by_moves();
    open_heap();
    for (const unsigned pages : {1U, 2U, 5U}) {
        plan_of(Call::count_moved).pages_max = pages;
        EXPECT_EQ(work(pages), 0u);
    }
    for (const int error : {EEXIST, EAGAIN, EBUSY, EINVAL, ENOMEM}) {
        SCOPED_TRACE(strerrorname_np(error));
        fail(Call::count_moved, error);
        EXPECT_EQ(work(6), 0u);
        EXPECT_EQ(failed(Call::count_moved) != 0, pages_are_moved());
    }
}

TEST_F(Failures, CallsTakeLong) {
    open_heap();
    for (const Call call :
         {Call::copy, Call::move, Call::write_protect, Call::drop, Call::read_faults, Call::wake}) {
        plan_of(call).spins = 20;
        EXPECT_EQ(work(static_cast<std::uint64_t>(call)), 0u);
        plan_of(call).spins = 0;
    }
}

// Nothing can be taken out: pages stay near, and the program goes on.
TEST_F(Failures, PagesThatCannotBeTakenOutStayNear) {
    leave_by_moves();
    open_heap();
    for (const int error : {EBUSY, ENOMEM, EAGAIN, EINVAL}) {
        fail(Call::move, error);
        fail(Call::write_protect, error);
        std::uint8_t* const buffer = alloc_filled(64, Kind::text, 5);
        std::uint64_t done = 0;
        EXPECT_EQ(pn_demote(heap_, buffer, 64 * page_bytes, &done), 0);
        EXPECT_EQ(done, 0u) << strerrorname_np(error);
        EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 5), 0u);
        mend();
        make_far(buffer, 64);
        EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 5), 0u);
        EXPECT_EQ(pn_buffer_free(heap_, buffer, 64 * page_bytes), 0);
    }
}

// vm.max_map_count is reached: the chunk stays near, one line says so, and later it can be watched.
TEST_F(Failures, AChunkThatCannotBeWatchedStaysNear) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(64, Kind::text, 5);
    fail(Call::register_range, ENOMEM);
    EXPECT_EQ(demote(buffer, 64), 0u);
    EXPECT_EQ(pn_pin(heap_, buffer, page_bytes), ENOMEM);
    EXPECT_GE(failed(Call::register_range), 1u);
    mend();
    make_far(buffer, 64);
    EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 5), 0u);
}

// Which pages are there cannot be asked: all count as there, and those that are not read as zeros.
TEST_F(Failures, PagesThatCannotBeAskedForCountAsNear) {
    open_heap();
    constexpr std::uint64_t pages = 64;
    std::uint8_t* const buffer = alloc(pages);
    fill_pages(buffer, pages / 2, Kind::text, 5);
    fail(Call::find_present, ENOMEM);
    EXPECT_EQ(pn_pin(heap_, buffer, page_bytes), 0);  // watches the chunk
    EXPECT_GE(failed(Call::find_present), 1u);
    EXPECT_EQ(pn_unpin(heap_, buffer, page_bytes), 0);
    mend();
    EXPECT_EQ(wrong_pages(buffer, pages / 2, Kind::text, 5), 0u);
    EXPECT_EQ(wrong_pages(buffer + pages / 2 * page_bytes, pages / 2, Kind::zeros, 0), 0u);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages / 2, Kind::text, 5), 0u);
}

// Pages that a child shared cannot be moved before they are the process's own again: they stay near.
TEST_F(Failures, SharedPagesThatCannotBeMadeOwnStayNear) {
    leave_by_moves();
    open_heap();
    std::uint8_t* const buffer = alloc_filled(64, Kind::text, 5);
    ASSERT_EQ(verdict_of_child([] { return Verdict::good; }), Verdict::good);
    fail(Call::populate, ENOMEM);
    const std::uint64_t done = demote(buffer, 64);
    EXPECT_TRUE(failed(Call::populate) == 0 || done == 0) << done;
    EXPECT_EQ(failed(Call::populate) != 0, pages_are_moved());
    EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 5), 0u);
    mend();
    make_far(buffer, 64);
    EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 5), 0u);
}

// The kernel does not move what is swapped out and was shared either, and mincore(2) says of it what it says
// of none: unless the page map is asked, it would stay for ever.
TEST_F(Failures, SharedPagesThatAreSwappedOutLeave) {
    leave_by_moves();
    open_heap();
    std::uint8_t* const buffer = alloc_filled(64, Kind::text, 5);
    ASSERT_EQ(verdict_of_child([] { return Verdict::good; }), Verdict::good);
    fail(Call::count_present, ENOENT);
    make_far(buffer, 64);
    mend();
    EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 5), 0u);
}

// Spans that the kernel protects in part, or not: their pages leave in another way, and who writes goes on.
TEST_F(Failures, WhatCannotBeProtectedTogetherLeavesAllTheSame) {
    options_.flags |= PN_HEAP_PINNED_IO;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(64, Kind::text, 5);
    for (const int error : {EAGAIN, ENOENT}) {
        fail(Call::write_protect, error, 1, 1);
        demote(buffer, 64);
        EXPECT_NE(failed(Call::write_protect), 0u);
        fill_pages(buffer, 64, Kind::text, 5);
        mend();
        EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 5), 0u);
        make_far(buffer, 64);
        EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 5), 0u);
    }
}

// The kernel keeps the range as several mappings: then page by page.
TEST_F(Failures, WhatCannotBeMovedAsAWholeIsMovedPageByPage) {
    open_heap();
    std::uint8_t* from = alloc_filled(64, Kind::text, 5);
    std::uint8_t* to = alloc(64);
    fail(Call::move_page_tables, EINVAL);
    for (int round = 0; round < 2; ++round) {
        EXPECT_EQ(pn_relocate(heap_, from, to, 64 * page_bytes), 0);
        EXPECT_EQ(wrong_pages(to, 64, Kind::text, 5), 0u);
        EXPECT_EQ(wrong_pages(from, 64, Kind::zeros, 0), 0u);
        std::swap(from, to);
        fail(Call::count_present, ENOENT);  // and now they are swapped out
    }
}

// Swapped out before anybody watched them, which mincore(2) says of them as of none. The page map tells;
// where that cannot be read they count as near.
TEST_F(Failures, SwappedPagesAreFound) {
    for (const Call call : {Call::count, Call::open_page_map, Call::read_page_map}) {
        if (call != Call::count) fail(call, EACCES);
        open_heap();
        std::uint8_t* const buffer = alloc_filled(64, Kind::text, 5);
        std::uint8_t* const other = alloc(64);
        fail(Call::count_present, ENOENT);
        fail(Call::move_page_tables, EINVAL);
        EXPECT_EQ(pn_pin(heap_, buffer, page_bytes), 0);  // watches the chunk
        EXPECT_EQ(pn_unpin(heap_, buffer, page_bytes), 0);
        EXPECT_EQ(pn_relocate(heap_, buffer, other, 64 * page_bytes), 0);
        EXPECT_EQ(wrong_pages(other, 64, Kind::text, 5), 0u);
        mend();
        make_far(other, 64);
        EXPECT_EQ(wrong_pages(other, 64, Kind::text, 5), 0u);
        pn_heap_close(heap_);
        heap_ = nullptr;
        if (call != Call::count) {
            EXPECT_GE(failed(call), 1u);
        }
    }
}

// No memory for a promotion: the fault waits, and is served when there is some again.
TEST_F(Failures, AFaultWaitsForMemory) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(8, Kind::text, 5);
    make_far(buffer, 8);
    fail(Call::copy, ENOMEM, 1, 40);
    EXPECT_EQ(wrong_pages(buffer, 8, Kind::text, 5), 0u);
    EXPECT_GE(failed(Call::copy), 40u);
}

// ---- what is needed to begin ----

TEST_F(Failures, WithoutAUserfaultfdTheHeapSaysWhy) {
    for (const int error : {EPERM, ENOSYS, EMFILE, ENOMEM}) {
        fail(Call::open_device, error);
        fail(Call::userfaultfd, error);
        EXPECT_EQ(pn_heap_open(&options_, &heap_), error);
        EXPECT_NE(std::string_view(pn_last_message()), "");
        heap_ = nullptr;
    }
    mend();
    fail(Call::open_device, EACCES);  // the next rung serves
    open_heap();
    EXPECT_EQ(work(3), 0u);
}

TEST_F(Failures, WithoutItsFeaturesTheHeapSaysWhy) {
    fail(Call::enable_features, EINVAL);
    EXPECT_EQ(pn_heap_open(&options_, &heap_), EINVAL);
    heap_ = nullptr;
    mend();
    fail(Call::raise_descriptor, EMFILE);
    EXPECT_EQ(pn_heap_open(&options_, &heap_), EMFILE);
    heap_ = nullptr;
}

// Each mapping in turn is refused; nothing is left behind, and without refusals it opens.
TEST_F(Failures, WithoutAddressSpaceTheHeapSaysSo) {
    unsigned refused = 0;
    for (unsigned at = 1; at < 100; ++at) {
        fail(Call::map, ENOMEM, at, 1);
        const int error = pn_heap_open(&options_, &heap_);
        if (error == 0) break;
        EXPECT_EQ(error, ENOMEM) << at;
        heap_ = nullptr;
        ++refused;
    }
    EXPECT_GE(refused, 5u);
    mend();
    ASSERT_NE(heap_, nullptr);
    EXPECT_EQ(work(4), 0u);
}

TEST_F(Failures, WithoutItsSignalTheInlineEngineSaysSo) {
    if (os::is_taken(SIGBUS)) GTEST_SKIP() << "a process takes the signal once: to be run by itself";
    options_.engine = PN_ENGINE_INLINE;
    fail(Call::signal_action, EINVAL);
    EXPECT_EQ(pn_heap_open(&options_, &heap_), EINVAL);
    heap_ = nullptr;
    mend();
    open_heap();
    EXPECT_EQ(work(3), 0u);
}

using HandlerFailures = Failures;

TEST_F(HandlerFailures, WithoutAFirstThreadTheHeapSaysSo) {
    fail(Call::start_thread, EAGAIN);
    EXPECT_EQ(pn_heap_open(&options_, &heap_), EAGAIN);
    heap_ = nullptr;
}

// The evictor writes it in a child, so that it takes no number of the program's.
TEST_F(Failures, WithoutAChildTheStatisticsFileIsWrittenAllTheSame) {
    const std::string path = ::testing::TempDir() + "pnode-failures-" + std::to_string(getpid());
    open_heap();
    fail(Call::make_child, EAGAIN);
    ASSERT_EQ(pn_stats_file(heap_, path.c_str(), 1), 0);
    make_far(alloc_filled(16, Kind::text, 1), 16);
    EXPECT_TRUE(eventually([&] { return access(path.c_str(), R_OK) == 0; }));
    EXPECT_GE(failed(Call::make_child), 1u);
    EXPECT_EQ(work(3), 0u);
    unlink(path.c_str());
}

// Fewer handlers than wished, and no evictor: whoever faults makes room.
TEST_F(Failures, WithoutFurtherThreadsItGoesOn) {
    const unsigned first_may = tests_inline_engine() ? 0 : 1;
    plan_of(Call::start_thread).error = EAGAIN;
    options_.near_bytes_max = 4 * mib;
    fail(Call::start_thread, EAGAIN, first_may + 1);
    open_heap();
    std::uint8_t* const buffer = alloc_filled(4096, Kind::text, 9);
    EXPECT_EQ(wrong_pages(buffer, 4096, Kind::text, 9), 0u);
    EXPECT_LE(stats().near_bytes_peak, 4 * mib + overshoot_bytes_max);
    EXPECT_EQ(work(6), 0u);
}

// ---- the change to handler threads ----

class InlineFailures : public Failures {
  protected:
    static constexpr std::uint64_t pages = 4 * 128;  // as many pieces
    std::uint8_t* buffer_ = nullptr;

    void open_far() {
        open_heap();
        buffer_ = alloc_filled(pages, Kind::text, 40);
        make_far(buffer_, pages);
    }
    // Whichever way it went. Did it change, or did `call` fail?
    bool change_and_look(Call call) {
        bool changed = false;
        changes_in_the_end([&] {
            changed = serve_by_handler_threads(nullptr);
            return changed || failed(call) != 0;
        });
        mend();
        EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 40), 0u);
        EXPECT_EQ(work(41), 0u);
        make_far(buffer_, pages);
        return changed;
    }
};

// Each call of it in turn fails once.
TEST_F(InlineFailures, WhatCannotChangeStaysInlineAndChangesLater) {
    unsigned refusals = 0;
    open_far();
    for (const Call call :
         {Call::open_device, Call::userfaultfd, Call::enable_features, Call::raise_descriptor,
          Call::start_thread, Call::unregister_range, Call::register_range, Call::find_present, Call::wake}) {
        for (unsigned at = 1; at < 40; ++at) {
            fail(call, ENOMEM, at, 1);
            const bool changed = change_and_look(call);
            const bool was_called = failed(call) != 0;
            refusals += changed ? 0 : 1;
            EXPECT_TRUE(changed || was_called) << static_cast<int>(call) << " " << at;
            if (!changed) continue;
            EXPECT_EQ(pn_heap_close(heap_), 0);
            open_far();
            if (!was_called) break;
        }
    }
    // A descriptor, its features, its number, the first thread; the doorbell, staging and each piece on
    // either side.
    EXPECT_GE(refusals, 4u + 2 * (2 + pages / 128));
    EXPECT_TRUE(change_and_look(Call::count));
}

// It stays between them for long: who demotes, reads and writes meanwhile, and who has new ranges watched,
// finds every byte.
TEST_F(InlineFailures, NobodyFindsAPieceBetweenTwoDescriptors) {
    constexpr unsigned threads_count = 3;
    open_far();
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> wrong = 0;
    std::atomic<std::uint64_t> rounds = 0;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < threads_count; ++t) {
        threads.emplace_back([&, t] {
            constexpr std::uint64_t share = pages / threads_count;
            std::uint8_t* const own = buffer_ + t * share * page_bytes;
            while (!done) {
                pn_demote(heap_, own, share * page_bytes, nullptr);
                wrong += wrong_pages(own, share, Kind::text, 40 + t * share);
                ++rounds;
            }
        });
    }
    threads.emplace_back([&] {
        constexpr std::uint64_t chunk = 2 * mib / page_bytes;
        for (unsigned buffer = 0; buffer < 40 && !done; ++buffer) {
            std::uint8_t* const fresh = alloc_filled(chunk, Kind::text, buffer);
            pn_demote(heap_, fresh, chunk * page_bytes, nullptr);
            wrong += wrong_pages(fresh, chunk, Kind::text, buffer);
        }
    });
    EXPECT_TRUE(eventually([&] { return rounds > threads_count; }));
    plan_of(Call::register_range).spins = 20;
    EXPECT_TRUE(changes_in_the_end([] { return serve_by_handler_threads(nullptr); }));
    mend();
    const std::uint64_t before = rounds;
    EXPECT_TRUE(eventually([&] { return rounds > before + 2 * threads_count; }));
    done = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(work(41), 0u);
}

TEST_F(InlineFailures, WithoutAnEvictorItStaysInline) {
    fail(Call::start_thread, EAGAIN);
    open_far();
    mend();
    EXPECT_FALSE(serve_by_handler_threads(nullptr));
    EXPECT_EQ(wrong_pages(buffer_, pages, Kind::text, 40), 0u);
}

// ---- what cannot be gone on from ----

std::atomic<unsigned> calls_left{0};
std::atomic<Call> call_to_fail{Call::count};
int fail_from_then_on(Call call, std::size_t*) noexcept {
    if (call != call_to_fail) return 0;
    return calls_left == 0 || calls_left-- == 0 ? ENOMEM : 0;
}

using InlineFailuresDeathTest = InlineFailures;

// In the middle of its pieces, and neither forth nor back.
TEST_F(InlineFailuresDeathTest, WhatCanBeWatchedByNeitherEndsTheProcess) {
    for (const Call call : {Call::register_range, Call::unregister_range}) {
        EXPECT_EXIT(
            {
                open_far();
                call_to_fail = call;
                calls_left = 4;
                os::injection = fail_from_then_on;
                changes_in_the_end([] { return serve_by_handler_threads(nullptr); });
            },
            [](int status) { return !WIFEXITED(status) || WEXITSTATUS(status) != 0; },
            "a range can be watched neither inline nor by handler threads .errno 12.: the process cannot go "
            "on");
    }
}

using FailuresDeathTest = Failures;
using HandlerFailuresDeathTest = Failures;

TEST_F(HandlerFailuresDeathTest, FaultsThatCannotBeReadEndTheProcess) {
    EXPECT_EXIT(
        {
            open_heap();
            fail(Call::read_faults, EIO);
            std::uint8_t* const buffer = alloc_filled(8, Kind::text, 5);
            for (int i = 0; i < 100; ++i) {
                make_far(buffer, 8);
                EXPECT_EQ(wrong_pages(buffer, 8, Kind::text, 5), 0u);
            }
        },
        [](int status) { return !WIFEXITED(status) || WEXITSTATUS(status) != 0; },
        "reading faults failed with errno 5: the process cannot go on");
}

TEST_F(FailuresDeathTest, AChildThatCannotWatchItsFarMemoryEnds) {
    if (thread_sanitized)
        GTEST_SKIP() << "ThreadSanitizer cannot follow threads that are started after a fork";
    open_heap();
    std::uint8_t* const buffer = alloc_filled(8, Kind::text, 5);
    make_far(buffer, 8);
    for (const Call call : {Call::enable_features, Call::raise_descriptor, Call::register_range, Call::map,
                            Call::start_thread, Call::unregister_range}) {
        // The inline engine starts no thread, and answers by signal from the start.
        if ((call == Call::start_thread || call == Call::unregister_range) && tests_inline_engine()) continue;
        fail(call, EAGAIN);
        const Verdict verdict = verdict_of_child([&] { return Verdict::good; });
        EXPECT_EQ(static_cast<int>(verdict), 127) << static_cast<int>(call);
        mend();
    }
    fail(Call::register_range, ENOMEM, 2);  // its staging area is registered, its memory is not
    EXPECT_EQ(static_cast<int>(verdict_of_child([] { return Verdict::good; })), 127);
    mend();
    EXPECT_EQ(wrong_pages(buffer, 8, Kind::text, 5), 0u);
    EXPECT_EQ(verdict_of_child([&] {
                  return wrong_pages(buffer, 8, Kind::text, 5) == 0 ? Verdict::good : Verdict::wrong_bytes;
              }),
              Verdict::good);
}

}  // namespace
}  // namespace pnode::test
