// Buffers as mappings: protections, reservations, these very pages, handed out and taken back, relocated.
#include <sys/mman.h>
#include <sys/uio.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class Mapping : public HeapTest {
  protected:
    std::uint32_t kind_at(const void* address) {
        pn_extent_t extent{};
        EXPECT_EQ(pn_extent(heap_, address, page_bytes, &extent), 0);
        return extent.kind;
    }
    std::uint64_t near_bytes() {
        pn_stats_t stats{};
        stats.struct_bytes = sizeof stats;
        stats.version = PN_VERSION;
        EXPECT_EQ(pn_stats(heap_, &stats), 0);
        return stats.near_bytes;
    }
    // 0 or an errno, and no signal. Of memory that is not watched, where a read is never refused for being
    // far.
    int read_by_kernel(void* address) {
        std::uint8_t byte = 0;
        const iovec to{&byte, 1};
        const iovec from{address, 1};
        return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1 ? 0 : errno;
    }
    void expect_sound() { EXPECT_EQ(pn_heap_validate(heap_), nullptr); }
};

TEST_F(Mapping, AReservationIsNotNearBeforeItIsAccessible) {
    open_heap();
    const std::uint64_t before = near_bytes();
    void* area = nullptr;
    ASSERT_EQ(pn_buffer_reserve(heap_, 64 * mib, 2 * mib, &area), 0);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(area) % (2 * mib), 0u);
    EXPECT_EQ(near_bytes(), before);
    auto* const bytes = static_cast<std::uint8_t*>(area);
    ASSERT_EQ(pn_protect(heap_, bytes + mib, 4 * page_bytes, PROT_READ | PROT_WRITE), 0);
    bytes[mib] = 1;
    EXPECT_LE(near_bytes(), before + 4 * page_bytes);
    pn_extent_t extent{};
    ASSERT_EQ(pn_extent(heap_, bytes, 64 * mib, &extent), 0);
    EXPECT_EQ(extent.bytes, mib);
    EXPECT_EQ(extent.protection, PROT_NONE);
    EXPECT_EQ(pn_buffer_free(heap_, area, 64 * mib), 0);
    expect_sound();
}

// Or a stray pointer would find memory there that nothing bounds.
TEST_F(Mapping, WhatNoBufferEverHadIsInaccessible) {
    open_heap();
    void* start = nullptr;
    std::uint64_t bytes = 0;
    ASSERT_EQ(pn_heap_range(heap_, &start, &bytes), 0);
    auto* const last = static_cast<std::uint8_t*>(start) + bytes - page_bytes;
    EXPECT_EQ(read_by_kernel(last), EFAULT);
    alloc_filled(64, Kind::text, 1);
    EXPECT_EQ(read_by_kernel(last), EFAULT);
    ASSERT_EQ(pn_buffer_alloc_at(heap_, last, page_bytes, 0), 0);
    *last = 7;
    EXPECT_EQ(*last, 7);
    std::uint8_t* const below = alloc_filled(64, Kind::text, 2);
    EXPECT_LT(below, last);
    EXPECT_EQ(wrong_pages(below, 64, Kind::text, 2), 0u);
    expect_sound();
}

TEST_F(Mapping, TheseVeryPagesOrNone) {
    open_heap();
    constexpr std::uint64_t pages = 64;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(pn_buffer_alloc_at(heap_, buffer, page_bytes, 0), EEXIST);
    ASSERT_EQ(pn_protect(heap_, buffer + 8 * page_bytes, 8 * page_bytes, PROT_NONE), 0);
    ASSERT_EQ(pn_buffer_free(heap_, buffer + 8 * page_bytes, 8 * page_bytes), 0);
    EXPECT_EQ(kind_at(buffer + 8 * page_bytes), static_cast<std::uint32_t>(PN_EXTENT_FREE));
    EXPECT_EQ(pn_buffer_alloc_at(heap_, buffer + 8 * page_bytes, 9 * page_bytes, 0), EEXIST);
    ASSERT_EQ(pn_buffer_alloc_at(heap_, buffer + 10 * page_bytes, 2 * page_bytes, 0), 0);
    EXPECT_EQ(buffer[10 * page_bytes], 0);  // and accessible again
    EXPECT_EQ(wrong_pages(buffer, 8, Kind::text, 1), 0u);
    EXPECT_EQ(pn_buffer_alloc_at(heap_, buffer + 1, page_bytes, 0), EINVAL);
    EXPECT_EQ(pn_buffer_alloc_at(heap_, buffer, page_bytes, 2), EINVAL);
    expect_sound();
}

TEST_F(Mapping, ReadOnlyPagesLeaveAndComeBack) {
    open_heap();
    constexpr std::uint64_t pages = 64;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_EQ(pn_protect(heap_, buffer, pages * page_bytes, PROT_READ), 0);
    demote(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    ASSERT_EQ(pn_protect(heap_, buffer, pages * page_bytes, PROT_NONE), 0);
    demote(buffer, pages);
    ASSERT_EQ(pn_protect(heap_, buffer, pages * page_bytes, PROT_READ | PROT_WRITE), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_protect(heap_, buffer, pages * page_bytes, 64), EINVAL);
    expect_sound();
}

TEST_F(Mapping, HandedOutPagesAreTheCallersUntilTakenBack) {
    open_heap();
    constexpr std::uint64_t pages = 32;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    demote(buffer, pages);
    std::uint8_t* const out = buffer + 8 * page_bytes;
    ASSERT_EQ(pn_hand_out(heap_, out, 8 * page_bytes), 0);
    ASSERT_EQ(
        mmap(out, 8 * page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
        out);
    out[5] = 5;
    EXPECT_EQ(kind_at(out), static_cast<std::uint32_t>(PN_EXTENT_HANDED_OUT));
    EXPECT_EQ(pn_release(heap_, out, page_bytes), EINVAL);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), EINVAL);
    demote(buffer, 8);
    EXPECT_EQ(out[5], 5);
    EXPECT_EQ(pn_take_back(heap_, buffer, 9 * page_bytes), EINVAL);
    ASSERT_EQ(pn_take_back(heap_, out, 8 * page_bytes), 0);
    ASSERT_EQ(pn_protect(heap_, out, 8 * page_bytes, PROT_READ | PROT_WRITE), 0);
    EXPECT_EQ(out[5], 0);
    fill_pages(out, 8, Kind::text, 70);
    demote(buffer, pages);
    EXPECT_EQ(wrong_pages(out, 8, Kind::text, 70), 0u);
    EXPECT_EQ(wrong_pages(buffer, 8, Kind::text, 1), 0u);
    expect_sound();
}

// Four parts: near, far, far but all zeros, never touched.
TEST_F(Mapping, PagesAreHandedOutAsTheApplicationLeftThem) {
    open_heap();
    constexpr std::uint64_t part = 150;
    std::uint8_t* const buffer = alloc_filled(4 * part, Kind::text, 1);
    std::uint8_t* const zeros = buffer + 2 * part * page_bytes;
    std::uint8_t* const fresh = buffer + 3 * part * page_bytes;
    fill_pages(zeros, part, Kind::zeros, 0);
    ASSERT_EQ(pn_release(heap_, fresh, part * page_bytes), 0);
    demote(buffer, 4 * part);
    EXPECT_EQ(wrong_pages(buffer, part, Kind::text, 1), 0u);
    ASSERT_EQ(pn_pin(heap_, buffer, page_bytes), 0);
    EXPECT_EQ(pn_hand_out_contents(heap_, buffer, 4 * part * page_bytes), EBUSY);
    ASSERT_EQ(pn_unpin(heap_, buffer, page_bytes), 0);
    ASSERT_EQ(pn_hand_out_contents(heap_, buffer, 4 * part * page_bytes), 0);
    EXPECT_EQ(pn_hand_out_contents(heap_, buffer, page_bytes), EINVAL);
    EXPECT_EQ(pn_demote(heap_, buffer, page_bytes, nullptr), EINVAL);
    EXPECT_EQ(near_bytes(), 0u);
    EXPECT_EQ(kind_at(buffer), static_cast<std::uint32_t>(PN_EXTENT_HANDED_OUT));
    std::vector<unsigned char> present(4 * part);
    ASSERT_EQ(mincore(buffer, 4 * part * page_bytes, present.data()), 0);
    for (std::uint64_t page = 0; page < 4 * part; ++page)
        ASSERT_EQ(present[page] & 1, page < 3 * part ? 1 : 0) << page;
    expect_sound();
    fresh[7] = 7;
    EXPECT_EQ(wrong_pages(buffer, 2 * part, Kind::text, 1), 0u);
    EXPECT_EQ(wrong_pages(zeros, part, Kind::zeros, 0), 0u);
    ASSERT_EQ(pn_take_back(heap_, buffer, 4 * part * page_bytes), 0);
    ASSERT_EQ(pn_protect(heap_, buffer, 4 * part * page_bytes, PROT_READ | PROT_WRITE), 0);
    EXPECT_EQ(wrong_pages(buffer, 4 * part, Kind::zeros, 0), 0u);
    fill_pages(buffer, 4 * part, Kind::text, 9);
    demote(buffer, 4 * part);
    EXPECT_EQ(wrong_pages(buffer, 4 * part, Kind::text, 9), 0u);
    expect_sound();
}

// Accesses, demotions and a heap that is too small meanwhile; each round a buffer of its own.
TEST_F(Mapping, PagesAreHandedOutWhileTheyAreUsed) {
    open_heap();
    constexpr std::uint64_t pages = 512;
    for (int round = 0; round < 20; ++round) {
        std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
        std::uint8_t* const fresh = alloc_filled(pages, Kind::zeros, 0);
        ASSERT_EQ(pn_release(heap_, fresh, pages * page_bytes), 0);
        std::atomic<bool> ends{false};
        std::atomic<std::uint64_t> wrong{0};
        std::atomic<unsigned> turns{0};
        std::vector<std::thread> threads;
        for (std::uint64_t thread = 0; thread < 3; ++thread) {
            threads.emplace_back([&, thread] {
                do {
                    const std::uint64_t page = (turns++ * 7 + thread * 100) % pages;
                    wrong += wrong_pages(buffer + page * page_bytes, 1, Kind::text, 1 + page);
                    wrong += wrong_pages(fresh + page * page_bytes, 1, Kind::zeros, 0);
                } while (!ends);
            });
        }
        threads.emplace_back([&] {
            std::uint64_t done = 0;
            do {
                pn_demote(heap_, buffer, pages * page_bytes, &done);  // EINVAL in the end
                pn_demote(heap_, fresh, pages * page_bytes, &done);
            } while (!ends);
        });
        while (turns < 50) std::this_thread::yield();
        EXPECT_EQ(pn_hand_out_contents(heap_, buffer, pages * page_bytes), 0);
        EXPECT_EQ(pn_hand_out_contents(heap_, fresh, pages * page_bytes), 0);
        const unsigned now = turns;
        while (turns < now + 50) std::this_thread::yield();
        ends = true;
        for (std::thread& thread : threads) thread.join();
        ASSERT_EQ(wrong, 0u);
        ASSERT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
        for (std::uint8_t* const out : {buffer, fresh}) {
            ASSERT_EQ(pn_take_back(heap_, out, pages * page_bytes), 0);
            ASSERT_EQ(pn_buffer_free(heap_, out, pages * page_bytes), 0);
        }
    }
    expect_sound();
}

TEST_F(Mapping, RelocatedPagesAreWhatTheyWere) {
    open_heap();
    constexpr std::uint64_t pages = 200;
    std::uint8_t* const from = alloc_filled(pages, Kind::text, 1);
    std::uint8_t* const to = alloc_filled(pages, Kind::text, 5000);
    demote(from, pages / 2);
    for (int round = 0; round < 2; ++round) {
        ASSERT_EQ(pn_relocate(heap_, from, to, pages * page_bytes), 0);
        EXPECT_EQ(wrong_pages(from, pages, Kind::zeros, 0), 0u);
        EXPECT_EQ(wrong_pages(to, pages, Kind::text, 1), 0u);
        ASSERT_EQ(pn_relocate(heap_, to, from, pages * page_bytes), 0);
        EXPECT_EQ(wrong_pages(from, pages, Kind::text, 1), 0u);
        demote(from, pages);
    }
    EXPECT_EQ(pn_relocate(heap_, from, from + page_bytes, 2 * page_bytes), EINVAL);
    ASSERT_EQ(pn_pin(heap_, from, page_bytes), 0);
    EXPECT_EQ(pn_relocate(heap_, from, to, pages * page_bytes), EBUSY);
    ASSERT_EQ(pn_unpin(heap_, from, page_bytes), 0);
    expect_sound();
}

class CalmMapping : public Mapping {};

TEST_F(CalmMapping, FarPagesStayFarWhenRelocated) {
    open_heap();
    constexpr std::uint64_t pages = 128;
    std::uint8_t* const from = alloc_filled(pages, Kind::text, 1);
    std::uint8_t* const to = alloc(pages);
    make_far(from, pages);
    pn_stats_t before{};
    before.struct_bytes = sizeof before;
    before.version = PN_VERSION;
    ASSERT_EQ(pn_stats(heap_, &before), 0);
    ASSERT_EQ(pn_relocate(heap_, from, to, pages * page_bytes), 0);
    pn_stats_t after = before;
    ASSERT_EQ(pn_stats(heap_, &after), 0);
    EXPECT_EQ(after.promotions, before.promotions);
    EXPECT_EQ(after.far_logical_bytes, before.far_logical_bytes);
    EXPECT_EQ(wrong_pages(to, pages, Kind::text, 1), 0u);
    expect_sound();
}

}  // namespace
}  // namespace pnode::test
