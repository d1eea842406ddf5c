// io_uring under the shield: the kernel's accesses come later, from nowhere that can be held. A program that
// sets a ring up before anything is far gets handler threads, which serve them; one that comes later is
// refused.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "far_memory.h"

namespace {

using preload_test::becomes_far;
using preload_test::becomes_mostly_far;
using preload_test::FarBlock;
using preload_test::page_bytes;

constexpr std::size_t large_bytes = std::size_t{16} << 20;  // twice the near limit

TEST(EarlyRing, ReadsIntoFarMemory) {
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
    FarBlock block(large_bytes, 1);
    const int file = memfd_create("ring", MFD_CLOEXEC);
    const std::string text(page_bytes, 'r');
    ASSERT_EQ(write(file, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    auto* const buffer = static_cast<char*>(std::aligned_alloc(page_bytes, 2 * page_bytes));
    std::memset(buffer, 'x', 2 * page_bytes);
    for (int round = 0; round < 4; ++round) {
        ASSERT_TRUE(becomes_far(buffer, 2 * page_bytes, 0, block));
        io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
        io_uring_prep_read(sqe, file, buffer, page_bytes, 0);
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
        ASSERT_EQ(io_uring_submit(&ring), 1);
        io_uring_cqe* cqe = nullptr;
        ASSERT_EQ(io_uring_wait_cqe(&ring, &cqe), 0);
        EXPECT_EQ(cqe->res, static_cast<int>(page_bytes));
        io_uring_cqe_seen(&ring, cqe);
        EXPECT_EQ(std::memcmp(buffer, text.data(), page_bytes), 0);
        EXPECT_EQ(buffer[page_bytes], 'x');
    }
    EXPECT_TRUE(block.is_intact());
    std::free(buffer);
    close(file);
    io_uring_queue_exit(&ring);
}

TEST(LateRing, IsRefusedWhereFaultsAreServedInline) {
    FarBlock block(large_bytes, 2);
    ASSERT_TRUE(becomes_mostly_far(block));
    io_uring ring;
    EXPECT_EQ(io_uring_queue_init(4, &ring, 0), -EPERM);
    EXPECT_TRUE(block.is_intact());
}

}  // namespace
