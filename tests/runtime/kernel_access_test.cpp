// Kernel-mode access to far pages with the thread engine: every system call gives what it gives for near
// memory.
#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <atomic>

#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

struct Span {
    std::uint64_t offset, bytes;
};
constexpr std::uint64_t pages = 16;
// Within a page, at its edges, over one edge, over many pages, whole.
constexpr Span spans[] = {{0, 1},     {100, 50},    {page_bytes - 1, 1},          {page_bytes - 1, 2},
                          {4090, 12}, {4095, 8194}, {page_bytes, 3 * page_bytes}, {0, pages* page_bytes}};

// A descriptor that closes itself.
class Fd {
  public:
    explicit Fd(int fd) : fd_(fd) {}
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() {
        if (fd_ >= 0) close(fd_);
    }
    int get() const { return fd_; }

  private:
    int fd_;
};

class KernelAccess : public HeapTest {
  protected:
    void SetUp() override {
        HeapTest::SetUp();
        if (IsSkipped()) return;
        open_heap();
        if (heap_ == nullptr) return;
        source_ = alloc(pages);
        target_ = alloc(pages);
        expected_.resize(pages * page_bytes);
    }

    // Both buffers far, with known bytes; expected_ is what target_ must hold once `span` of source_ went
    // there.
    void start(Span span) {
        fill_pages(source_, pages, Kind::text, 1);
        std::memcpy(expected_.data(), source_, expected_.size());
        fill_pages(target_, pages, Kind::text, 1000);
        std::vector<std::uint8_t> wanted(expected_.size());
        std::memcpy(wanted.data(), target_, wanted.size());
        std::memcpy(wanted.data() + span.offset, expected_.data() + span.offset, span.bytes);
        expected_ = std::move(wanted);
        make_far(source_, pages);
        make_far(target_, pages);
    }
    void expect_arrived() {
        EXPECT_EQ(std::memcmp(target_, expected_.data(), expected_.size()), 0);
        EXPECT_EQ(wrong_pages(source_, pages, Kind::text, 1), 0u);
    }
    static Fd scratch_file(int flags = 0) {
        std::string path = ::testing::TempDir() + "pnode_kernel_access_XXXXXX";
        const int fd = mkostemp(path.data(), O_CLOEXEC | flags);
        if (fd >= 0) unlink(path.c_str());
        return Fd(fd);
    }

    std::uint8_t* source_ = nullptr;
    std::uint8_t* target_ = nullptr;
    std::vector<std::uint8_t> expected_;
};

#define FOR_EACH_SPAN(span)                                                                               \
    for (const Span& span : spans)                                                                        \
        if (::testing::ScopedTrace trace(__FILE__, __LINE__,                                              \
                                         std::to_string(span.offset) + "+" + std::to_string(span.bytes)); \
            true)

TEST_F(KernelAccess, WriteAndRead) {
    FOR_EACH_SPAN(span) {
        start(span);
        const Fd file = scratch_file();
        const auto bytes = static_cast<ssize_t>(span.bytes);
        ASSERT_EQ(write(file.get(), source_ + span.offset, span.bytes), bytes);
        ASSERT_EQ(lseek(file.get(), 0, SEEK_SET), 0);
        ASSERT_EQ(read(file.get(), target_ + span.offset, span.bytes), bytes);
        expect_arrived();
    }
}

TEST_F(KernelAccess, PwriteAndPread) {
    FOR_EACH_SPAN(span) {
        start(span);
        const Fd file = scratch_file();
        const auto bytes = static_cast<ssize_t>(span.bytes);
        ASSERT_EQ(pwrite(file.get(), source_ + span.offset, span.bytes, 777), bytes);
        ASSERT_EQ(pread(file.get(), target_ + span.offset, span.bytes, 777), bytes);
        expect_arrived();
    }
}

// The span in up to three parts, so that vectors begin and end inside of pages.
std::vector<iovec> in_parts(std::uint8_t* buffer, Span span) {
    std::vector<iovec> parts;
    const std::uint64_t step = span.bytes / 3 + 1;
    for (std::uint64_t at = 0; at < span.bytes; at += step) {
        parts.push_back({buffer + span.offset + at, std::min(step, span.bytes - at)});
    }
    return parts;
}

TEST_F(KernelAccess, WritevAndReadv) {
    FOR_EACH_SPAN(span) {
        start(span);
        const Fd file = scratch_file();
        const auto bytes = static_cast<ssize_t>(span.bytes);
        const std::vector<iovec> from = in_parts(source_, span);
        const std::vector<iovec> to = in_parts(target_, span);
        ASSERT_EQ(writev(file.get(), from.data(), static_cast<int>(from.size())), bytes);
        ASSERT_EQ(lseek(file.get(), 0, SEEK_SET), 0);
        ASSERT_EQ(readv(file.get(), to.data(), static_cast<int>(to.size())), bytes);
        expect_arrived();
    }
}

TEST_F(KernelAccess, VectorsThatAreFarThemselves) {
    const Span span = {4000, 5000};
    start(span);
    const Fd file = scratch_file();
    auto* const vectors = reinterpret_cast<iovec*>(alloc(1));
    vectors[0] = {source_ + span.offset, span.bytes};
    make_far(vectors, 1);
    ASSERT_EQ(writev(file.get(), vectors, 1), static_cast<ssize_t>(span.bytes));
    vectors[0] = {target_ + span.offset, span.bytes};
    make_far(vectors, 1);
    ASSERT_EQ(preadv(file.get(), vectors, 1, 0), static_cast<ssize_t>(span.bytes));
    expect_arrived();
}

// Moves the whole span through a channel that may take it in pieces.
template <class Send, class Receive>
bool pump(std::uint8_t* from, std::uint8_t* to, std::uint64_t bytes, Send send_some, Receive receive_some) {
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    while (received < bytes) {
        if (sent < bytes) {
            const ssize_t moved = send_some(from + sent, std::min<std::uint64_t>(bytes - sent, 16 * kib));
            if (moved <= 0) return false;
            sent += static_cast<std::uint64_t>(moved);
        }
        const ssize_t moved = receive_some(to + received, sent - received);
        if (moved <= 0) return false;
        received += static_cast<std::uint64_t>(moved);
    }
    return true;
}

TEST_F(KernelAccess, Pipe) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const Fd out(ends[0]);
    const Fd in(ends[1]);
    FOR_EACH_SPAN(span) {
        start(span);
        ASSERT_TRUE(pump(
            source_ + span.offset, target_ + span.offset, span.bytes,
            [&](void* at, std::uint64_t bytes) { return write(in.get(), at, bytes); },
            [&](void* at, std::uint64_t bytes) { return read(out.get(), at, bytes); }));
        expect_arrived();
    }
}

TEST_F(KernelAccess, SendAndRecv) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const Fd left(ends[0]);
    const Fd right(ends[1]);
    FOR_EACH_SPAN(span) {
        start(span);
        ASSERT_TRUE(pump(
            source_ + span.offset, target_ + span.offset, span.bytes,
            [&](void* at, std::uint64_t bytes) { return send(left.get(), at, bytes, 0); },
            [&](void* at, std::uint64_t bytes) { return recv(right.get(), at, bytes, 0); }));
        expect_arrived();
    }
}

TEST_F(KernelAccess, SendmsgAndRecvmsgOfOneDatagram) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
    const Fd left(ends[0]);
    const Fd right(ends[1]);
    FOR_EACH_SPAN(span) {
        start(span);
        std::vector<iovec> from = in_parts(source_, span);
        std::vector<iovec> to = in_parts(target_, span);
        msghdr message = {};
        message.msg_iov = from.data();
        message.msg_iovlen = from.size();
        ASSERT_EQ(sendmsg(left.get(), &message, 0), static_cast<ssize_t>(span.bytes));
        message.msg_iov = to.data();
        message.msg_iovlen = to.size();
        ASSERT_EQ(recvmsg(right.get(), &message, 0), static_cast<ssize_t>(span.bytes));
        expect_arrived();
    }
}

TEST_F(KernelAccess, DirectIo) {
    const Fd file = scratch_file(O_DIRECT);
    if (file.get() < 0) GTEST_SKIP() << "the temporary directory's file system has no O_DIRECT";
    for (const Span& span :
         {Span{0, page_bytes}, Span{page_bytes, 3 * page_bytes}, Span{0, pages * page_bytes}}) {
        start(span);
        const auto bytes = static_cast<ssize_t>(span.bytes);
        ASSERT_EQ(pwrite(file.get(), source_ + span.offset, span.bytes, 0), bytes);
        ASSERT_EQ(pread(file.get(), target_ + span.offset, span.bytes, 0), bytes);
        expect_arrived();
    }
}

TEST_F(KernelAccess, ProcessVmReadvAndWritev) {
    FOR_EACH_SPAN(span) {
        const iovec from = {source_ + span.offset, span.bytes};
        const iovec to = {target_ + span.offset, span.bytes};
        start(span);
        ASSERT_EQ(process_vm_readv(getpid(), &to, 1, &from, 1, 0), static_cast<ssize_t>(span.bytes));
        expect_arrived();
        start(span);
        ASSERT_EQ(process_vm_writev(getpid(), &from, 1, &to, 1, 0), static_cast<ssize_t>(span.bytes));
        expect_arrived();
    }
}

TEST_F(KernelAccess, PathsAndSmallOutputs) {
    const char path[] = "/proc/self/status";
    char* const far_path = reinterpret_cast<char*>(source_) + page_bytes - 5;  // across an edge
    std::memset(source_, 0, pages * page_bytes);
    std::memcpy(far_path, path, sizeof(path));
    make_far(source_, pages);
    const Fd file(open(far_path, O_RDONLY | O_CLOEXEC));
    EXPECT_GE(file.get(), 0);

    auto* const ends = reinterpret_cast<int*>(target_ + page_bytes - sizeof(int));
    std::memset(target_, 1, pages * page_bytes);
    make_far(target_, pages);
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const Fd out(ends[0]);
    const Fd in(ends[1]);
    EXPECT_EQ(write(in.get(), "x", 1), 1);
}

long futex(std::uint32_t* word, int operation, std::uint32_t value) {
    return syscall(SYS_futex, word, operation, value, nullptr, nullptr, 0);
}

TEST_F(KernelAccess, FutexReadsItsWord) {
    auto* const word = reinterpret_cast<std::uint32_t*>(source_ + page_bytes - sizeof(std::uint32_t));
    for (const int scope : {0, FUTEX_PRIVATE_FLAG}) {
        fill_pages(source_, pages, Kind::text, 1);
        *word = 41;
        make_far(source_, pages);
        EXPECT_EQ(futex(word, FUTEX_WAIT | scope, 42), -1);
        EXPECT_EQ(errno, EAGAIN);
        make_far(source_, pages);
        EXPECT_EQ(futex(word, FUTEX_WAKE | scope, 1), 0);
    }
}

TEST_F(KernelAccess, FutexWakesAWaiterWhoseWordWentFar) {
    auto* const word = reinterpret_cast<std::uint32_t*>(source_);
    fill_pages(source_, pages, Kind::text, 1);
    *word = 7;
    std::thread waiter([&] {
        while (futex(word, FUTEX_WAIT_PRIVATE, 7) != 0 && errno == EINTR) {
        }
    });
    const bool woken = eventually([&] {
        EXPECT_EQ(pn_demote(heap_, source_, pages * page_bytes, nullptr), 0);
        return futex(word, FUTEX_WAKE_PRIVATE, 1) == 1;
    });
    EXPECT_TRUE(woken);
    std::atomic_ref(*word).store(8);  // a waiter that comes late does not wait
    futex(word, FUTEX_WAKE_PRIVATE, 1);
    waiter.join();
}

// The kernel reads and writes while another thread takes the pages away again and again.
TEST_F(KernelAccess, CopiesWhilePagesLeave) {
    std::atomic<bool> done = false;
    fill_pages(source_, pages, Kind::text, 1);
    std::thread demoter([&] {
        while (!done) {
            EXPECT_EQ(pn_demote(heap_, source_, pages * page_bytes, nullptr), 0);
            EXPECT_EQ(pn_demote(heap_, target_, pages * page_bytes, nullptr), 0);
        }
    });
    const Fd file = scratch_file();
    const auto bytes = static_cast<ssize_t>(pages * page_bytes);
    for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(pwrite(file.get(), source_, pages * page_bytes, 0), bytes);
        EXPECT_EQ(pread(file.get(), target_, pages * page_bytes, 0), bytes);
        EXPECT_EQ(wrong_pages(target_, pages, Kind::text, 1), 0u);
        fill_page(target_ + (i % pages) * page_bytes, Kind::half, 5);
    }
    done = true;
    demoter.join();
}

}  // namespace
}  // namespace pnode::test
