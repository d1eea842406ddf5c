// Pages that were only read since they came near, and kept no blob: with the inline engine they leave from
// where they are, while others read them. Every byte is compared.
#include <sys/mman.h>

#include <atomic>

#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class InlineUnwritten : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 512;

    // Every second page, so that the others fill the node.
    static constexpr std::uint64_t step = 2;
    static constexpr std::uint64_t read_pages = pages / step;

    void SetUp() override {
        HeapTest::SetUp();
        if (IsSkipped()) return;
        open_where_none_is_kept(pages, 1, &buffer_);
    }

    std::uint8_t* at(std::uint64_t page) const { return buffer_ + page * page_bytes; }
    static std::uint64_t seed_of(std::uint64_t page) { return 1 + page; }

    // Each is compared; from the last on, so that none comes ahead and the node stays as full as it is.
    std::uint64_t wrong_of_every(std::uint64_t every, std::uint64_t from = 0) const {
        std::uint64_t wrong = 0;
        for (std::uint64_t left = (pages - from + every - 1) / every; left-- > 0;) {
            const std::uint64_t page = from + left * every;
            wrong += page_is(at(page), Kind::text, seed_of(page)) ? 0 : 1;
        }
        return wrong;
    }
    void read_them() {
        ASSERT_EQ(wrong_of_every(step), 0u);
        ASSERT_EQ(stats().kept_blob_bytes, 0u) << "none was to be kept";
    }

    std::uint8_t* buffer_ = nullptr;
};

TEST_F(InlineUnwritten, LeaveFromWhereTheyAre) {
    for (int round = 0; round < 3; ++round) {
        read_them();
        const pn_stats_t before = stats();
        make_far(buffer_, pages);
        const pn_stats_t after = stats();
        EXPECT_EQ(after.demotions - before.demotions, read_pages);
        EXPECT_EQ(after.evictions_in_place - before.evictions_in_place, after.demotions - before.demotions);
        EXPECT_EQ(after.demotions_unchanged, before.demotions_unchanged);
        EXPECT_EQ(after.kept_blob_bytes, 0u);
    }
    EXPECT_EQ(wrong_of_every(1), 0u);
}

TEST_F(InlineUnwritten, AreNotWhenTheyWereWrittenTo) {
    read_them();
    for (std::uint64_t page = 0; page < pages; page += 3 * step) *at(page) ^= 0xff;
    make_far(buffer_, pages);
    for (std::uint64_t page = 0; page < pages; page += 3 * step) *at(page) ^= 0xff;
    EXPECT_EQ(wrong_of_every(1), 0u);
}

// A write fault for each page would cost more than what leaving in place saves.
TEST_F(InlineUnwritten, AreNotWatchedWhereManyAreWrittenTo) {
    const auto write_faults = [&](std::uint64_t from) {
        EXPECT_EQ(wrong_of_every(2 * step, from), 0u);
        const std::uint64_t before = stats().faults_redundant;
        for (std::uint64_t page = from; page < pages; page += 2 * step) *at(page) ^= 0xff;
        for (std::uint64_t page = from; page < pages; page += 2 * step) *at(page) ^= 0xff;
        return stats().faults_redundant - before;
    };
    EXPECT_EQ(write_faults(0), read_pages / 2);
    EXPECT_EQ(write_faults(step), 0u);
    make_far(buffer_, pages);
    EXPECT_EQ(wrong_of_every(1), 0u);
}

TEST_F(InlineUnwritten, StayWhereTheProgramLockedThem) {
    read_them();
    std::uint8_t* const locked = at(64);
    constexpr int on_fault = 1;  // MLOCK_ONFAULT: the kernel writes to what it makes present
    ASSERT_EQ(syscall(SYS_mlock2, locked, page_bytes, on_fault), 0);
    demote(buffer_, pages);
    EXPECT_EQ(states(locked, 1)[0], PN_PAGE_NEAR);
    demote(buffer_, pages);  // it has its blob by now
    EXPECT_EQ(states(locked, 1)[0], PN_PAGE_NEAR);
    ASSERT_EQ(syscall(SYS_munlock, locked, page_bytes), 0);
    make_far(buffer_, pages);
    EXPECT_EQ(wrong_of_every(1), 0u);
}

// By a program that does not tell us.
TEST_F(InlineUnwritten, LeaveIfTheyMayBeReadAndStayIfNot) {
    read_them();
    ASSERT_EQ(mprotect(at(64), page_bytes, PROT_READ), 0);
    ASSERT_EQ(mprotect(at(128), page_bytes, PROT_NONE), 0);
    EXPECT_TRUE(eventually([&] { return demote(buffer_, pages) == pages - 1; }));
    EXPECT_EQ(states(at(64), 1)[0], PN_PAGE_FAR);
    EXPECT_EQ(states(at(128), 1)[0], PN_PAGE_NEAR);
    ASSERT_EQ(mprotect(at(64), page_bytes, PROT_READ | PROT_WRITE), 0);
    ASSERT_EQ(mprotect(at(128), page_bytes, PROT_READ | PROT_WRITE), 0);
    make_far(buffer_, pages);
    EXPECT_EQ(wrong_of_every(1), 0u);
}

TEST_F(InlineUnwritten, ThatWereDroppedUnseenReadAsZeros) {
    read_them();
    ASSERT_EQ(madvise(at(64), page_bytes, MADV_DONTNEED), 0);
    make_far(buffer_, pages);
    EXPECT_TRUE(page_is(at(64), Kind::zeros, 0));
    fill_page(at(64), Kind::text, seed_of(64));
    make_far(buffer_, pages);
    EXPECT_EQ(wrong_of_every(1), 0u);
}

// Threads read, write to a page now and then, and give pages up, while all of it leaves again and again.
TEST_F(InlineUnwritten, LeaveWhileOthersUseThem) {
    constexpr std::uint64_t threads = 4, own_pages = pages / threads;
    const std::uint64_t rounds = sanitized ? 6 : 24;
    std::atomic<std::uint64_t> wrong = 0;
    std::atomic<bool> done = false;
    const std::uint64_t in_place = stats().evictions_in_place;
    std::thread demoter([&] {
        while (!done) wrong += pn_demote(heap_, buffer_, pages * page_bytes, nullptr) == 0 ? 0 : 1;
    });
    const auto use = [&](std::uint64_t t) {
        Random random(t);
        for (std::uint64_t round = 0; round < rounds; ++round) {
            for (std::uint64_t i = 0; i < pages;
                 ++i) {  // its own, which it may change, and all others' tails
                const std::uint64_t page = i;
                const bool mine = page / own_pages == t;
                if (!mine) {
                    wrong += at(page)[page_bytes - 1] == page_image(Kind::text, seed_of(page))[page_bytes - 1]
                                 ? 0
                                 : 1;
                    continue;
                }
                wrong += page_is(at(page), Kind::text, seed_of(page)) ? 0 : 1;
                if (random.below(16) == 0) {
                    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(at(page))).fetch_xor(1);
                    PageImage image = page_image(Kind::text, seed_of(page));
                    image[0] ^= 1;
                    wrong += std::memcmp(at(page), image.data(), page_bytes) == 0 ? 0 : 1;
                    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(at(page))).fetch_xor(1);
                }
            }
        }
    };
    std::vector<std::thread> users;
    for (std::uint64_t t = 0; t < threads; ++t) users.emplace_back(use, t);
    for (std::thread& user : users) user.join();
    done = true;
    demoter.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(stats().evictions_in_place, in_place);
    EXPECT_EQ(wrong_of_every(1), 0u);
}

TEST_F(InlineUnwritten, ReleasedWhileTheyLeaveReadAsZeros) {
    const std::uint64_t rounds = sanitized ? 4 : 16;
    std::atomic<bool> done = false;
    std::atomic<std::uint64_t> wrong = 0;
    std::thread demoter([&] {
        while (!done) wrong += pn_demote(heap_, buffer_, pages * page_bytes, nullptr) == 0 ? 0 : 1;
    });
    for (std::uint64_t round = 0; round < rounds; ++round) {
        wrong += wrong_of_every(1);
        for (std::uint64_t page = round % 3; page < pages; page += 3) {
            wrong += page_is(at(page), Kind::text, seed_of(page)) ? 0 : 1;
            wrong += pn_release(heap_, at(page), page_bytes) == 0 ? 0 : 1;
            wrong += page_is(at(page), Kind::zeros, 0) ? 0 : 1;
            fill_page(at(page), Kind::text, seed_of(page));
        }
    }
    done = true;
    demoter.join();
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(wrong_of_every(1), 0u);
}

}  // namespace
}  // namespace pnode::test
