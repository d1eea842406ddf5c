// fork(): a child sees every byte as of the fork whatever its parent does, and neither disturbs the other.
//
// Not run under ThreadSanitizer, which does not support threads started after a fork of a process with
// threads.
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <latch>
#include <string_view>
#include <thread>

#include "runtime/handles.h"
#include "runtime/os/thread.h"
#include "runtime/process.h"
#include "tests/runtime/child_process.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class Fork : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 96;

    // A third far, a third near again with a kept blob, a third never demoted.
    std::uint8_t* alloc_mixed(std::uint64_t seed) {
        std::uint8_t* const buffer = alloc_filled(pages, Kind::text, seed);
        make_far(buffer, 2 * pages / 3);
        EXPECT_EQ(pn_promote(heap_, buffer + pages / 3 * page_bytes, pages / 3 * page_bytes), 0);
        return buffer;
    }
    // Of eight pages one stays, and what they were stored in is sparse.
    static bool release_most(pn_heap* heap, std::uint8_t* buffer, std::uint64_t count) {
        bool is_done = true;
        for (std::uint64_t page = 0; page < count; ++page)
            if (page % 8 != 3) is_done &= pn_release(heap, buffer + page * page_bytes, page_bytes) == 0;
        return is_done;
    }
    static Verdict check_what_stayed(const std::uint8_t* buffer, std::uint64_t count, std::uint64_t seed) {
        for (std::uint64_t page = 3; page < count; page += 8)
            if (!page_is(buffer + page * page_bytes, Kind::text, seed + page)) return Verdict::wrong_bytes;
        return Verdict::good;
    }
    static Verdict check(const std::uint8_t* buffer, std::uint64_t seed) {
        return wrong_pages(buffer, pages, Kind::text, seed) == 0 ? Verdict::good : Verdict::wrong_bytes;
    }
    // Takes every page out and reads it back, as a child that goes on using the heap.
    Verdict churn(std::uint8_t* buffer, std::uint64_t seed) {
        if (pn_demote(heap_, buffer, pages * page_bytes, nullptr) != 0) return Verdict::call_failed;
        if (check(buffer, seed) != Verdict::good) return Verdict::wrong_bytes;
        if (pn_demote(heap_, buffer, pages * page_bytes, nullptr) != 0) return Verdict::call_failed;
        if (pn_promote(heap_, buffer, pages * page_bytes) != 0) return Verdict::call_failed;
        return check(buffer, seed);
    }
    // A second heap with the first one's options: each child, and the parent after it, reads what is far in
    // both.
    void fork_with_another_heap(int rounds) {
        pn_heap* other = nullptr;
        ASSERT_EQ(pn_heap_open(&options_, &other), 0) << pn_last_message();
        std::uint8_t* const buffer = alloc_mixed(1);
        void* memory = nullptr;
        ASSERT_EQ(pn_buffer_alloc(other, pages * page_bytes, 0, &memory), 0);
        auto* const others = static_cast<std::uint8_t*>(memory);
        fill_pages(others, pages, Kind::text, 600);
        ASSERT_EQ(pn_demote(other, others, pages * page_bytes, nullptr), 0);
        for (int round = 0; round < rounds; ++round) {
            EXPECT_EQ(verdict_of_child([&] {
                          if (check(others, 600) != Verdict::good) return Verdict::wrong_bytes;
                          return churn(buffer, 1);
                      }),
                      Verdict::good);
            EXPECT_EQ(check(others, 600), Verdict::good);
            EXPECT_EQ(churn(buffer, 1), Verdict::good);
        }
        EXPECT_EQ(pn_heap_close(other), 0);
    }
};

// The evictor moves blobs; forks fall into the middle of that. What a child inherited stays where it was for
// as long as it lives, and the child packs a store of its own.
TEST_F(Fork, WhileBlobsAreMoved) {
    constexpr std::uint64_t count = 2048;
    open_heap();
    std::uint8_t* const buffer = alloc(count);
    const auto blobs_moved = [this] {
        pn_stats_t now = {};
        now.struct_bytes = sizeof now;
        now.version = PN_VERSION;
        return pn_stats(heap_, &now) == 0 ? now.blobs_moved : 0;
    };
    // Packing may have been through before the last page was released, and rest for long then: so again.
    const auto pack_most = [&](std::uint64_t seed) {
        constexpr int tries_max = 30, looks_max = 200;
        const std::uint64_t before = blobs_moved();
        for (int tries = 0; tries < tries_max; ++tries) {
            fill_pages(buffer, count, Kind::text, seed);
            if (pn_demote(heap_, buffer, count * page_bytes, nullptr) != 0) return false;
            if (!release_most(heap_, buffer, count)) return false;
            for (int looks = 0; looks < looks_max; ++looks) {
                heap_->heap.near.wake_evictor();  // as evictions do
                if (blobs_moved() != before) return true;
                std::this_thread::sleep_for(std::chrono::milliseconds(10));
            }
        }
        return false;
    };
    for (std::uint64_t round = 0; round < 4; ++round) {
        const std::uint64_t seed = 10'000 * (round + 1);
        ASSERT_TRUE(pack_most(seed));
        Door door;
        Child child = Child::start([&] {
            if (!door.pass()) return Verdict::call_failed;
            const Verdict inherited = check_what_stayed(buffer, count, seed);
            if (inherited != Verdict::good) return inherited;
            if (!pack_most(seed + 5'000)) return Verdict::call_failed;
            if (pn_heap_validate(heap_) != nullptr) return Verdict::wrong_state;
            return check_what_stayed(buffer, count, seed + 5'000);
        });
        EXPECT_EQ(check_what_stayed(buffer, count, seed), Verdict::good);
        fill_pages(buffer, count, Kind::text, 1);
        EXPECT_EQ(pn_demote(heap_, buffer, count * page_bytes, nullptr), 0);
        door.open();
        EXPECT_EQ(child.wait(), Verdict::good);
        EXPECT_EQ(wrong_pages(buffer, count, Kind::text, 1), 0u);
        EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    }
}

TEST_F(Fork, ChildReadsNearFarAndFreshPages) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    std::uint8_t* const fresh = alloc(pages);
    make_far(fresh, pages);
    const Verdict verdict = verdict_of_child([&] {
        if (wrong_pages(fresh, pages, Kind::zeros, 0) != 0) return Verdict::wrong_fresh_bytes;
        return check(buffer, 1);
    });
    EXPECT_EQ(verdict, Verdict::good);
    EXPECT_EQ(check(buffer, 1), Verdict::good);
}

TEST_F(Fork, BeforeAnythingWasDemoted) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(verdict_of_child([&] { return churn(buffer, 1); }), Verdict::good);
    EXPECT_EQ(churn(buffer, 1), Verdict::good);
}

// Pages that were only read since they came near may leave without a look at them, because the first write
// would have been noticed. A child's kernel notices nothing of the kind: fork() does not hand that down.
TEST_F(Fork, ChildsWritesToPagesThatWereOnlyReadAreNotDropped) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    ASSERT_EQ(check(buffer, 1), Verdict::good);
    make_far(buffer + pages / 2 * page_bytes, 1);  // so that the child has something far to watch
    const auto write_all = [&] {
        fill_pages(buffer, pages, Kind::text, 500);
        return churn(buffer, 500);
    };
    EXPECT_EQ(verdict_of_child(write_all), Verdict::good);
    EXPECT_EQ(check(buffer, 1), Verdict::good);
    EXPECT_EQ(write_all(), Verdict::good);
}

int threads_of_this_process() {
    int threads = 0;
    for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
        ++threads;
    return threads;
}

// Nothing is far when the child is made, so nothing need be watched: no thread, until it has use for one.
TEST_F(Fork, ChildPaysForNothingWhenNothingIsFar) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    EXPECT_EQ(pn_promote(heap_, buffer, pages * page_bytes), 0);
    // Under stress pages are on their way out at any moment.
    const bool calm = pages_in_state(buffer, pages, PN_PAGE_NEAR) == pages && !is_stressed();
    EXPECT_EQ(verdict_of_child([&] {
                  if (calm && threads_of_this_process() != 1) return Verdict::wrong_state;
                  if (check(buffer, 1) != Verdict::good) return Verdict::wrong_bytes;
                  const Verdict used = churn(buffer, 1);
                  if (used != Verdict::good) return used;
                  return pn_heap_validate(heap_) == nullptr ? Verdict::good : Verdict::told_wrong;
              }),
              Verdict::good);
    EXPECT_EQ(churn(buffer, 1), Verdict::good);
}

// What is near, charged and kept is as right as if the child had been the first.
TEST_F(Fork, ChildThatStartsOverCountsRight) {
    constexpr std::uint64_t near = 8 * mib;
    options_.near_bytes_max = near;
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    std::uint8_t* const more = alloc(pages);
    EXPECT_EQ(pn_promote(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(verdict_of_child([&] {
                  for (int i = 0; i < 3; ++i) {
                      if (const Verdict each = churn(buffer, 1); each != Verdict::good) return each;
                  }
                  if (wrong_pages(more, pages, Kind::zeros, 0) != 0) return Verdict::wrong_fresh_bytes;
                  fill_pages(more, pages, Kind::text, 900);
                  if (const Verdict each = churn(more, 900); each != Verdict::good) return each;
                  if (pn_buffer_free(heap_, buffer, pages * page_bytes) != 0) return Verdict::call_failed;
                  if (pn_buffer_free(heap_, more, pages * page_bytes) != 0) return Verdict::call_failed;
                  const pn_stats_t now = stats();
                  if (now.near_bytes + now.far_logical_bytes != 0) return Verdict::told_wrong;
                  return pn_heap_validate(heap_) == nullptr ? Verdict::good : Verdict::wrong_state;
              }),
              Verdict::good);
}

// With far pages, one thread must answer faults and one makes room; the rest start with the first fault.
using HandlerFork = Fork;

TEST_F(HandlerFork, ChildStartsTheOtherHandlersWithItsFirstFault) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    const int of_parent = threads_of_this_process();
    EXPECT_EQ(verdict_of_child([&] {
                  // A stressed child may fault before this is asked.
                  if (!is_stressed() && threads_of_this_process() != 3) return Verdict::wrong_state;
                  if (check(buffer, 1) != Verdict::good) return Verdict::wrong_bytes;
                  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
                  while (threads_of_this_process() != of_parent) {
                      if (std::chrono::steady_clock::now() > end) return Verdict::told_wrong;
                  }
                  return churn(buffer, 1);
              }),
              Verdict::good);
}

TEST_F(Fork, ExecEndsTheLease) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    int gate[2];
    ASSERT_EQ(pipe(gate), 0);
    Child child = Child::start([&] {
        close(gate[1]);
        char go = 0;
        if (read(gate[0], &go, 1) != 1) return Verdict::call_failed;
        dup2(gate[0], STDIN_FILENO);
        execl("/bin/sh", "sh", "-c", "read line", static_cast<char*>(nullptr));
        return Verdict::call_failed;
    });
    EXPECT_EQ(stats().leases, 1u);
    EXPECT_EQ(write(gate[1], "x", 1), 1);
    EXPECT_TRUE(eventually([&] { return stats().leases == 0; }));  // though it runs
    EXPECT_EQ(kill(child.pid(), 0), 0);
    EXPECT_EQ(check(buffer, 1), Verdict::good);
    EXPECT_EQ(write(gate[1], "x\n", 2), 2);
    EXPECT_EQ(child.wait(), Verdict::good);
    close(gate[0]);
    close(gate[1]);
}

// They share the address space or are gone at once: there is no snapshot to keep, and nothing to quiesce.
TEST_F(Fork, VforkAndSpawnTakeNoLease) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    for (int i = 0; i < 20; ++i) {
        const pid_t child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", static_cast<char*>(nullptr));
            _exit(1);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
        ASSERT_EQ(std::system("exit 0"), 0);
    }
    EXPECT_EQ(stats().fork_events, 0u);
    EXPECT_EQ(stats().leases, 0u);
    EXPECT_EQ(churn(buffer, 1), Verdict::good);
}

TEST_F(Fork, BeforeActivation) {
    options_.activation_bytes = 16 * mib;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(verdict_of_child([&] {
                  if (check(buffer, 1) != Verdict::good) return Verdict::wrong_bytes;
                  void* more = nullptr;
                  if (pn_buffer_alloc(heap_, 32 * mib, 0, &more) != 0) return Verdict::call_failed;
                  fill_pages(static_cast<std::uint8_t*>(more), pages, Kind::text, 500);
                  const Verdict mine = churn(buffer, 1);
                  return mine == Verdict::good ? churn(static_cast<std::uint8_t*>(more), 500) : mine;
              }),
              Verdict::good);
    EXPECT_EQ(check(buffer, 1), Verdict::good);
}

// The child is held at a door while the parent does `meanwhile` to the buffer; then the child reads its
// snapshot.
class ForkSnapshot : public Fork {
  protected:
    template <class Meanwhile>
    void expect_snapshot_kept(Meanwhile&& meanwhile) {
        open_heap();
        std::uint8_t* const buffer = alloc_mixed(1);
        Door door;
        Child child = Child::start([&] { return door.pass() ? check(buffer, 1) : Verdict::hung; });
        meanwhile(buffer);
        door.open();
        EXPECT_EQ(child.wait(), Verdict::good);
    }
};

TEST_F(ForkSnapshot, WhileParentDemotesAndPromotes) {
    expect_snapshot_kept([&](std::uint8_t* buffer) {
        for (int i = 0; i < 3; ++i) EXPECT_EQ(churn(buffer, 1), Verdict::good);
    });
}

TEST_F(ForkSnapshot, WhileParentWrites) {
    expect_snapshot_kept([&](std::uint8_t* buffer) {
        fill_pages(buffer, pages, Kind::text, 2000);
        EXPECT_EQ(churn(buffer, 2000), Verdict::good);
        fill_pages(buffer, pages, Kind::half, 3000);
        EXPECT_EQ(pn_demote(heap_, buffer, pages * page_bytes, nullptr), 0);
        EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 3000), 0u);
    });
}

TEST_F(ForkSnapshot, WhileParentReleases) {
    expect_snapshot_kept([&](std::uint8_t* buffer) {
        EXPECT_EQ(pn_release(heap_, buffer, pages * page_bytes), 0);
        EXPECT_EQ(wrong_pages(buffer, pages, Kind::zeros, 0), 0u);
        fill_pages(buffer, pages, Kind::text, 7000);
        EXPECT_EQ(churn(buffer, 7000), Verdict::good);
    });
}

TEST_F(ForkSnapshot, WhileParentFreesAndFillsTheNode) {
    expect_snapshot_kept([&](std::uint8_t* buffer) {
        EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
        for (std::uint64_t i = 0; i < 4; ++i) {
            std::uint8_t* const other = alloc_filled(pages, Kind::half, i * 1000);
            make_far(other, pages);
            EXPECT_EQ(wrong_pages(other, pages, Kind::half, i * 1000), 0u);
        }
    });
}

TEST_F(ForkSnapshot, WhileParentClosesTheHeap) {
    expect_snapshot_kept([&](std::uint8_t*) { EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0); });
}

TEST_F(Fork, ParentIsUnaffectedByItsChild) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    const Verdict verdict = verdict_of_child([&] {
        fill_pages(buffer, pages, Kind::half, 5000);
        if (pn_demote(heap_, buffer, pages * page_bytes, nullptr) != 0) return Verdict::call_failed;
        if (wrong_pages(buffer, pages, Kind::half, 5000) != 0) return Verdict::wrong_bytes;
        if (pn_release(heap_, buffer, pages / 2 * page_bytes) != 0) return Verdict::call_failed;
        if (wrong_pages(buffer, pages / 2, Kind::zeros, 0) != 0) return Verdict::wrong_fresh_bytes;
        if (pn_buffer_free(heap_, buffer, pages * page_bytes) != 0) return Verdict::call_failed;
        return pn_heap_close(heap_) == 0 ? Verdict::good : Verdict::call_failed;
    });
    EXPECT_EQ(verdict, Verdict::good);
    EXPECT_EQ(churn(buffer, 1), Verdict::good);
}

TEST_F(Fork, ChildKeepsDemotingAndHasEveryCall) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    const Verdict verdict = verdict_of_child([&] {
        for (int i = 0; i < 4; ++i) {
            if (const Verdict each = churn(buffer, 1); each != Verdict::good) return each;
        }
        void* own = nullptr;
        if (pn_buffer_alloc(heap_, pages * page_bytes, 0, &own) != 0) return Verdict::call_failed;
        fill_pages(static_cast<std::uint8_t*>(own), pages, Kind::text, 900);
        if (pn_pin(heap_, own, page_bytes) != 0) return Verdict::call_failed;
        if (const Verdict each = churn(static_cast<std::uint8_t*>(own), 900); each != Verdict::good)
            return each;
        std::uint8_t state = PN_PAGE_POISONED;
        if (pn_query(heap_, own, page_bytes, &state) != 0) return Verdict::call_failed;
        if (state != PN_PAGE_NEAR && state != PN_PAGE_BUSY) return Verdict::wrong_state;
        if (pn_unpin(heap_, own, page_bytes) != 0) return Verdict::call_failed;
        if (pn_buffer_free(heap_, own, pages * page_bytes) != 0) return Verdict::call_failed;
        return churn(buffer, 1);
    });
    EXPECT_EQ(verdict, Verdict::good);
}

TEST_F(Fork, ChildKeepsToTheNearLimit) {
    constexpr std::uint64_t near = 2 * mib;
    constexpr std::uint64_t many = 3 * near / page_bytes;
    options_.near_bytes_max = near;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(many, Kind::text, 1);
    const Verdict verdict = verdict_of_child([&] {
        for (int i = 0; i < 2; ++i) {
            if (wrong_pages(buffer, many, Kind::text, 1) != 0) return Verdict::wrong_bytes;
        }
        fill_pages(buffer, many, Kind::text, 10000);
        if (wrong_pages(buffer, many, Kind::text, 10000) != 0) return Verdict::wrong_bytes;
        return stats().near_bytes <= near + overshoot_bytes_max ? Verdict::good : Verdict::limit_exceeded;
    });
    EXPECT_EQ(verdict, Verdict::good);
    EXPECT_EQ(wrong_pages(buffer, many, Kind::text, 1), 0u);
}

// A child that reads what is far and changes nothing compresses hardly anything: each page leaves as it came,
// for its blob is under lease. What is near at the fork stays, for it is shared with the parent; but while
// pages are on their way out, another may be taken that need not.
TEST_F(Fork, ChildThatOnlyReadsDropsWhatItPromoted) {
    constexpr std::uint64_t near = 4 * mib;
    constexpr std::uint64_t many = 10 * mib / page_bytes;  // 60 % far
    options_.near_bytes_max = near;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(many, Kind::text, 1);
    const std::vector<std::uint8_t> before = states(buffer, many);
    const pn_stats_t parent = stats();
    EXPECT_EQ(verdict_of_child([&] {
                  for (std::uint64_t page = 0; page < many; ++page) {
                      if (before[page] != PN_PAGE_FAR) continue;
                      if (!page_is(buffer + page * page_bytes, Kind::text, 1 + page))
                          return Verdict::wrong_bytes;
                  }
                  const pn_stats_t child = stats();
                  if (child.promotions - parent.promotions < many / 2) return Verdict::wrong_state;
                  if (child.near_bytes > near + overshoot_bytes_max) return Verdict::limit_exceeded;
                  const std::uint64_t demoted = child.demotions - parent.demotions;
                  const std::uint64_t unchanged = child.demotions_unchanged - parent.demotions_unchanged;
                  const bool hardly = demoted != 0 && demoted - unchanged <= demoted / 10;
                  return hardly ? Verdict::good : Verdict::told_wrong;
              }),
              Verdict::good);
    EXPECT_EQ(wrong_pages(buffer, many, Kind::text, 1), 0u);
}

// A system call of the program's own, of which libc's handlers of fork() hear nothing.
TEST_F(Fork, PagesOfWhoWasCopiedWithoutLibcLeaveAllTheSame) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    const long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) syscall(SYS_exit_group, 0);
    ASSERT_GT(child, 0);
    int status = -1;
    ASSERT_EQ(waitpid(static_cast<pid_t>(child), &status, 0), child);
    ASSERT_EQ(status, 0);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

// After a fork the kernel moves no page before it was written to again: the runtime sees to that.
TEST_F(Fork, PagesLeaveByBeingMovedWhileTheChildLivesAndAfterwards) {
    leave_by_moves();
    open_heap();
    const std::uint64_t in_place = pages_are_moved() ? 0 : pages;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    Door door;
    const auto pages_in_place = [&] {
        const std::uint64_t before = stats().evictions_in_place;
        fill_pages(buffer, pages / 2, Kind::text, 1);  // so that half of them are exclusive again
        make_far(buffer, pages);
        EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
        return stats().evictions_in_place - before;
    };
    Child child = Child::start([&] { return door.pass() ? check(buffer, 1) : Verdict::hung; });
    EXPECT_GE(pages_in_place(), in_place);
    door.open();
    EXPECT_EQ(child.wait(), Verdict::good);
    Child second = Child::start([&] { return check(buffer, 1); });
    EXPECT_EQ(second.wait(), Verdict::good);
    EXPECT_TRUE(eventually([&] { return stats().leases == 0; }));
    const std::uint64_t refused_before = stats().refused_pinned;
    EXPECT_GE(pages_in_place(), in_place);
    if (in_place == 0) {
        EXPECT_EQ(stats().evictions_in_place, 0u);
        EXPECT_EQ(stats().refused_pinned, refused_before);
    }
}

TEST_F(Fork, PinsHoldInTheChild) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(4, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer, 4 * page_bytes), 0);
    const Verdict verdict = verdict_of_child([&] {
        std::uint64_t done = 9;
        if (pn_demote(heap_, buffer, 4 * page_bytes, &done) != 0) return Verdict::call_failed;
        if (done != 0) return Verdict::wrong_state;
        if (pn_unpin(heap_, buffer, 4 * page_bytes) != 0) return Verdict::call_failed;
        if (pn_demote(heap_, buffer, 4 * page_bytes, &done) != 0) return Verdict::call_failed;
        return wrong_pages(buffer, 4, Kind::text, 1) == 0 ? Verdict::good : Verdict::wrong_bytes;
    });
    EXPECT_EQ(verdict, Verdict::good);
    EXPECT_EQ(demote(buffer, 4), 0u);
    EXPECT_EQ(pn_unpin(heap_, buffer, 4 * page_bytes), 0);
}

TEST_F(Fork, GrandchildrenReadEveryGenerationsBytes) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    std::uint8_t* const changed = alloc_mixed(2000);
    const Verdict verdict = verdict_of_child([&] {
        fill_pages(changed, pages, Kind::text, 3000);  // the child's own, in the child's own region
        if (pn_demote(heap_, changed, pages * page_bytes, nullptr) != 0) return Verdict::call_failed;
        const Verdict grandchild = verdict_of_child([&] {
            if (check(buffer, 1) != Verdict::good) return Verdict::wrong_bytes;
            if (check(changed, 3000) != Verdict::good) return Verdict::wrong_fresh_bytes;
            fill_pages(changed, pages, Kind::text, 4000);
            return churn(changed, 4000);
        });
        if (grandchild != Verdict::good) return Verdict::grandchild_failed;
        return churn(changed, 3000);
    });
    EXPECT_EQ(verdict, Verdict::good);
    EXPECT_EQ(check(changed, 2000), Verdict::good);
}

TEST_F(Fork, ChildOutlivesItsParent) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    Door parent_gone;
    int report[2];
    ASSERT_EQ(pipe(report), 0);
    const Verdict middle = verdict_of_child([&] {
        fill_pages(buffer, pages, Kind::text, 4000);
        if (pn_demote(heap_, buffer, pages * page_bytes, nullptr) != 0) return Verdict::call_failed;
        const pid_t orphan = fork();
        if (orphan != 0) return orphan > 0 ? Verdict::good : Verdict::call_failed;
        alarm(child_seconds_max);
        Verdict result = parent_gone.pass() ? churn(buffer, 4000) : Verdict::hung;
        if (write(report[1], &result, sizeof(result)) != sizeof(result)) _exit(1);
        _exit(0);
    });
    EXPECT_EQ(middle, Verdict::good);  // and it is reaped: the orphan's parent is gone
    parent_gone.open();
    close(report[1]);
    Verdict orphan = Verdict::crashed;
    pollfd ready = {report[0], POLLIN, 0};
    ASSERT_EQ(poll(&ready, 1, child_seconds_max * 1000), 1);
    EXPECT_EQ(read(report[0], &orphan, sizeof(orphan)), static_cast<ssize_t>(sizeof(orphan)));
    EXPECT_EQ(orphan, Verdict::good);
    close(report[0]);
    EXPECT_EQ(check(buffer, 1), Verdict::good);
}

TEST_F(Fork, ManyChildrenAtOnce) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(0);
    std::vector<Child> children;
    Door door;
    for (std::uint64_t generation = 0; generation < 20; ++generation) {
        fill_pages(buffer, pages, Kind::text, generation * 1000);
        if (generation % 2 == 0) make_far(buffer, pages);
        children.push_back(Child::start([&, generation] {
            if (!door.pass()) return Verdict::hung;
            return churn(buffer, generation * 1000);
        }));
    }
    EXPECT_EQ(stats().leases, 20u);
    door.open(20);
    for (Child& child : children) EXPECT_EQ(child.wait(), Verdict::good);
    EXPECT_EQ(churn(buffer, 19000), Verdict::good);
    EXPECT_TRUE(eventually([&] { return stats().leases == 0; }));
}

TEST_F(Fork, ChildMayExec) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    char* const word = reinterpret_cast<char*>(buffer);
    std::strcpy(word, "exit 0");  // the argument itself is far when exec reads it
    make_far(buffer, 1);
    EXPECT_EQ(verdict_of_child([&] {
                  execl("/bin/sh", "sh", "-c", word, static_cast<char*>(nullptr));
                  return Verdict::call_failed;
              }),
              Verdict::good);
    EXPECT_STREQ(word, "exit 0");
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer + page_bytes, pages - 1, Kind::text, 2), 0u);
}

TEST_F(Fork, FarSpaceComesBackOnceTheChildIsGone) {
    options_.node_spec = "memory:16M";
    open_heap();
    constexpr std::uint64_t many = 8 * mib / page_bytes;
    for (std::uint64_t round = 0; round < 4; ++round) {
        std::uint8_t* const buffer = alloc_filled(many, Kind::half, round * 10000);
        make_far(buffer, many);
        EXPECT_EQ(verdict_of_child([&] {
                      return wrong_pages(buffer, 64, Kind::half, round * 10000) == 0 ? Verdict::good
                                                                                     : Verdict::wrong_bytes;
                  }),
                  Verdict::good);
        EXPECT_TRUE(eventually([&] { return stats().leases == 0; }));
        EXPECT_EQ(wrong_pages(buffer, many, Kind::half, round * 10000), 0u);
        make_far(buffer, many);  // pages a child shared can leave again
        EXPECT_EQ(pn_buffer_free(heap_, buffer, many * page_bytes), 0);
    }
    EXPECT_GE(stats().fork_events, 4u);
}

TEST_F(Fork, OfAProcessWhoseThreadsFaultAndDemote) {
    options_.near_bytes_max = mib;
    open_heap();
    constexpr std::uint64_t many = 3 * mib / page_bytes;
    std::uint8_t* const still = alloc_filled(many, Kind::text, 1);
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> wrong = 0;
    // A thread's start allocates, and a sanitizer's allocator does not survive a fork that comes in between.
    std::latch started(4);
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 3; ++t) {
        std::uint8_t* const own = alloc_filled(pages, Kind::text, t * 1000);
        threads.emplace_back([&, own, t] {
            Random random(t);
            started.arrive_and_wait();
            while (!done) {
                const std::uint64_t page = random.below(pages);
                wrong += page_is(own + page * page_bytes, Kind::text, t * 1000 + page) ? 0 : 1;
                fill_page(own + page * page_bytes, Kind::text, t * 1000 + page);
                wrong += page_is(still + random.below(many) * page_bytes, Kind::zeros, 0) ? 1 : 0;
                if (random.below(16) == 0)
                    wrong += pn_demote(heap_, own, pages * page_bytes, nullptr) ? 1 : 0;
            }
        });
    }
    started.arrive_and_wait();
    for (int i = 0; i < 12; ++i) {
        EXPECT_EQ(verdict_of_child([&] {
                      return wrong_pages(still, many, Kind::text, 1) == 0 ? Verdict::good
                                                                          : Verdict::wrong_bytes;
                  }),
                  Verdict::good);
    }
    done = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(wrong_pages(still, many, Kind::text, 1), 0u);
}

// Each child sees all of it, whoever was bringing pages as it was made.
TEST_F(Fork, WhileAThreadReadsAndTheEvictorReadsAhead) {
    options_.near_bytes_max = 8 * mib;
    open_heap();
    constexpr std::uint64_t count = 4096;
    std::uint8_t* const buffer = alloc_filled(count, Kind::text, 1);
    std::atomic<bool> ends{false};
    std::atomic<std::uint64_t> wrong{0};
    // A thread's start allocates: a sanitizer's allocator would stay locked in a child that is made then.
    std::barrier started(2);
    std::thread reader([&] {
        started.arrive_and_wait();
        while (!ends) wrong += wrong_pages(buffer, count, Kind::text, 1);
    });
    started.arrive_and_wait();
    for (std::uint64_t child = 0; child < 12; ++child) {
        const std::uint64_t from = child * 300;
        Child reading = Child::start([&] {
            const bool right = wrong_pages(buffer + from * page_bytes, 256, Kind::text, 1 + from) == 0;
            return right ? Verdict::good : Verdict::wrong_bytes;
        });
        EXPECT_EQ(reading.wait(), Verdict::good);
    }
    ends = true;
    reader.join();
    EXPECT_EQ(wrong.load(), 0u);
}

TEST_F(Fork, ChildStartsThreadsOfItsOwn) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    EXPECT_EQ(verdict_of_child([&] {
                  Verdict verdicts[2] = {Verdict::hung, Verdict::hung};
                  std::thread demoter([&] { verdicts[0] = churn(buffer, 1); });
                  std::thread reader([&] { verdicts[1] = check(buffer, 1); });
                  demoter.join();
                  reader.join();
                  return verdicts[0] == Verdict::good ? verdicts[1] : verdicts[0];
              }),
              Verdict::good);
}

TEST_F(Fork, WithTwoHeaps) {
    open_heap();
    fork_with_another_heap(1);
}

// One store, two heaps that each prepare for the fork.
TEST_F(Fork, WithTwoHeapsOnOneNode) {
    pn_node* node = nullptr;
    ASSERT_EQ(pn_node_open("memory:256M", nullptr, &node), 0) << pn_last_message();
    options_.node = node;
    open_heap();
    fork_with_another_heap(2);  // the second time there may be a lease to end
    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    EXPECT_EQ(pn_node_close(node), 0);
}

TEST_F(Fork, AfterAHeapWasClosed) {
    open_heap();
    alloc_mixed(1);
    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    EXPECT_EQ(verdict_of_child([] { return Verdict::good; }), Verdict::good);
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(2);
    EXPECT_EQ(verdict_of_child([&] { return churn(buffer, 2); }), Verdict::good);
}

TEST_F(Fork, ManyTimesInARow) {
    open_heap();
    std::uint8_t* const buffer = alloc_mixed(1);
    for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(verdict_of_child(
                      [&] { return page_is(buffer, Kind::text, 1) ? Verdict::good : Verdict::wrong_bytes; }),
                  Verdict::good);
        EXPECT_EQ(churn(buffer, 1), Verdict::good);
    }
}

using InlineFork = Fork;

// ChildsWritesToPagesThatWereOnlyReadAreNotDropped, of pages that kept no blob, and of the child's child.
TEST_F(InlineFork, WritesToPagesThatWereOnlyReadAreNotDroppedInAnyGeneration) {
    std::uint8_t* buffer = nullptr;
    open_where_none_is_kept(pages, 1, &buffer);
    const auto read_half = [&] {
        for (std::uint64_t page = 0; page < pages; page += 2)
            if (!page_is(buffer + page * page_bytes, Kind::text, 1 + page)) return Verdict::wrong_bytes;
        return Verdict::good;
    };
    const auto change_half = [&](std::uint64_t offset) {
        for (std::uint64_t page = 0; page < pages; page += 2) buffer[page * page_bytes + offset] ^= 0xff;
    };
    // Written once by each, in a place of its own; nothing of it may be lost, nor come to anybody else.
    const auto use = [&](std::uint64_t offset) {
        change_half(offset);
        pn_demote(heap_, buffer, pages * page_bytes, nullptr);
        change_half(offset);
        pn_demote(heap_, buffer, pages * page_bytes, nullptr);
        return check(buffer, 1);
    };
    ASSERT_EQ(read_half(), Verdict::good);
    const auto child = [&] {
        const Verdict used = use(17);
        if (used != Verdict::good || read_half() != Verdict::good) return Verdict::wrong_bytes;
        return verdict_of_child([&] { return use(29); });
    };
    EXPECT_EQ(verdict_of_child(child), Verdict::good);
    EXPECT_EQ(use(41), Verdict::good);
}

// Children of before, of while and of after the change to handler threads; each goes on using the heap, and
// some change over themselves.
TEST_F(InlineFork, WhileTheEngineChanges) {
    if (!userfaultfd_allowed(false))
        GTEST_SKIP() << "needs a userfaultfd: sysctl vm.unprivileged_userfaultfd=1";
    constexpr std::uint64_t many = 4096;
    const auto change = [] { return changes_in_the_end([] { return serve_by_handler_threads(nullptr); }); };
    for (std::uint64_t heap = 0; heap < 3; ++heap) {
        open_heap();
        std::uint8_t* const buffer = alloc_mixed(1);
        std::uint8_t* const large = alloc_filled(many, Kind::text, 900);  // so that it takes its time
        make_far(large, many);
        const auto child_goes_on = [&](bool changes) {
            return verdict_of_child([&] {
                if (churn(buffer, 1) != Verdict::good) return Verdict::wrong_bytes;
                if (changes && !change()) return Verdict::call_failed;
                if (wrong_pages(large, many, Kind::text, 900) != 0) return Verdict::wrong_bytes;
                return churn(buffer, 1);
            });
        };
        EXPECT_EQ(child_goes_on(true), Verdict::good);
        std::atomic<bool> changed = false;
        std::barrier started(2);
        std::thread changer([&] {
            started.arrive_and_wait();
            EXPECT_TRUE(change());
            changed = true;
        });
        started.arrive_and_wait();
        do EXPECT_EQ(child_goes_on(false), Verdict::good);
        while (!changed);
        changer.join();
        EXPECT_EQ(child_goes_on(true), Verdict::good);
        EXPECT_EQ(churn(buffer, 1), Verdict::good);
        EXPECT_EQ(wrong_pages(large, many, Kind::text, 900), 0u);
        EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    }
}

// Its far pages are its parent's: they cost it nothing, and give it nothing.
TEST_F(Fork, ChildHasItsParentsNearLimitAndNoTotal) {
    constexpr std::uint64_t total = 6 * mib, many = 10 * mib / page_bytes;
    options_.total_bytes_max = total;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(many, Kind::text, 1);
    EXPECT_EQ(verdict_of_child([&] {
                  const std::uint64_t near_bytes_max = stats().near_bytes_max;
                  if (near_bytes_max >= total || stats().total_bytes_max != 0) return Verdict::told_wrong;
                  if (wrong_pages(buffer, many, Kind::text, 1) != 0) return Verdict::wrong_bytes;
                  return stats().near_bytes_max == near_bytes_max ? Verdict::good : Verdict::limit_exceeded;
              }),
              Verdict::good);
    EXPECT_EQ(stats().total_bytes_max, total);
    EXPECT_EQ(wrong_pages(buffer, many, Kind::text, 1), 0u);
}

// An allocator need not take its locks for a fork of the program's only thread (preload/jemalloc_fork.h).
TEST_F(Fork, TheProgramsOnlyThreadIsToldFromOurs) {
    open_heap();
    alloc_mixed(1);  // by now there is an evictor, and handlers with that engine
    const auto becomes_only_one = [] {
        for (int patience = 0; patience < 10'000; ++patience) {  // one of ours may be about to begin
            if (os::Thread::is_programs_only_one()) return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return false;
    };
    EXPECT_TRUE(becomes_only_one());
    for (int round = 0; round < 100; ++round) {
        std::latch let_go(1);
        std::thread another([&] { let_go.wait(); });
        EXPECT_FALSE(os::Thread::is_programs_only_one());
        let_go.count_down();
        another.join();
    }
    EXPECT_TRUE(becomes_only_one());
    EXPECT_EQ(verdict_of_child([&] { return becomes_only_one() ? Verdict::good : Verdict::call_failed; }),
              Verdict::good);
}

}  // namespace
}  // namespace pnode::test
