// Asynchronous input and output: the kernel reaches memory after the call that asked for it has returned, and
// pages may have been asked to leave in between.
#include <aio.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

// A ring, and the result of one request at a time. Where rings are forbidden (containers do) the answer is
// the same wherever memory is, and `usable()` says so.
class Ring {
  public:
    explicit Ring(unsigned flags = 0) {
        // Where others have the machine, the change to handler threads may be refused at first.
        for (int tries = 0; tries < 30; ++tries) {
            io_uring_params parameters = {};
            parameters.flags = flags;
            parameters.sq_thread_idle = 50;
            error_ = io_uring_queue_init_params(8, &ring_, &parameters);
            if (error_ != -EPERM) return;
        }
    }
    ~Ring() {
        if (error_ == 0) io_uring_queue_exit(&ring_);
    }
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    bool usable() const { return error_ == 0; }
    io_uring* get() { return &ring_; }
    io_uring_sqe* next() { return io_uring_get_sqe(&ring_); }
    void submit() { io_uring_submit(&ring_); }
    // A result, or minus an errno; a request that never ends is ETIME.
    long result() {
        __kernel_timespec timeout = {20, 0};
        io_uring_cqe* done = nullptr;
        const int error = io_uring_wait_cqe_timeout(&ring_, &done, &timeout);
        if (error != 0) return error;
        const long result = done->res;
        io_uring_cqe_seen(&ring_, done);
        return result;
    }

  private:
    io_uring ring_ = {};
    int error_ = 0;
};

// Still shows that memory went away, so that the case is the same everywhere.
bool is_forbidden(const Ring& ring, Memory& memory, Outcome& outcome) {
    if (ring.usable()) return false;
    outcome.text("io_uring", "is not to be had here");
    memory.text("x");
    memory.away();
    return true;
}

void ring_files(Memory& memory, Outcome& outcome, unsigned ring_flags, unsigned request_flags) {
    Ring ring(ring_flags);
    if (is_forbidden(ring, memory, outcome)) return;
    const Fd file = scratch_file();
    const auto bytes = static_cast<unsigned>(memory.data_bytes());
    const std::byte* const from = memory.data(3);
    std::byte* const to = memory.room(memory.data_bytes());
    auto* const vector = memory.put<iovec>({to, bytes});
    const auto run = [&](const char* what, auto prepare) {
        io_uring_sqe* const request = ring.next();
        prepare(request);
        request->flags |= static_cast<std::uint8_t>(request_flags);
        memory.away();
        ring.submit();
        memory.nudge();
        outcome.ok(what, ring.result());
    };
    run("write", [&](auto* request) { io_uring_prep_write(request, file, from, bytes, 0); });
    run("read", [&](auto* request) { io_uring_prep_read(request, file, to, bytes, 0); });
    std::memset(to, 0, bytes);
    run("readv", [&](auto* request) { io_uring_prep_readv(request, file, vector, 1, 0); });
    outcome.check("arrived", std::memcmp(from, to, bytes) == 0);
    memory.forget(vector);
}

void ring_case(Memory& memory, Outcome& outcome) {
    ring_files(memory, outcome, 0, 0);
}
void ring_worker_case(Memory& memory, Outcome& outcome) {
    ring_files(memory, outcome, 0, IOSQE_ASYNC);
}
void ring_poll_thread_case(Memory& memory, Outcome& outcome) {
    ring_files(memory, outcome, IORING_SETUP_SQPOLL, 0);
}

// The kernel pins them once; they cannot leave until they are unregistered.
void registered_buffers_case(Memory& memory, Outcome& outcome) {
    Ring ring;
    if (is_forbidden(ring, memory, outcome)) return;
    const Fd file = scratch_file();
    const auto bytes = static_cast<unsigned>(memory.data_bytes());
    std::byte* const from = memory.data(3);
    std::byte* const to = memory.room(memory.data_bytes());
    auto* const vectors = memory.put_all<iovec, 2>({iovec{from, bytes}, iovec{to, bytes}});
    memory.away();
    outcome.ok("register", io_uring_register_buffers(ring.get(), vectors, 2));
    memory.nudge();
    io_uring_prep_write_fixed(ring.next(), file, from, bytes, 0, 0);
    ring.submit();
    outcome.ok("write", ring.result());
    memory.nudge();
    io_uring_prep_read_fixed(ring.next(), file, to, bytes, 0, 1);
    ring.submit();
    memory.nudge();
    outcome.ok("read", ring.result());
    outcome.check("arrived", std::memcmp(from, to, bytes) == 0);
    // Written through the program's own view, read through the kernel's.
    memory.nudge();
    fill_with_text(from, bytes, 8);
    memory.nudge();
    io_uring_prep_write_fixed(ring.next(), file, from, bytes, 0, 0);
    ring.submit();
    outcome.ok("write again", ring.result());
    outcome.ok("unregister", io_uring_unregister_buffers(ring.get()));
    std::string text(bytes, '\0');
    outcome.ok("pread", pread(file, text.data(), bytes, 0));
    outcome.text("file", text);
    memory.forget(vectors);
}

// What is asked for arrives long after the request was made.
void ring_that_waits_case(Memory& memory, Outcome& outcome) {
    Ring ring;
    if (is_forbidden(ring, memory, outcome)) return;
    const Ends ends = new_socketpair(SOCK_DGRAM);
    const std::string text(std::min<std::size_t>(memory.data_bytes(), 60000), 'r');
    std::byte* const to = memory.room(text.size());
    auto* const vector = memory.put<iovec>({to, text.size()});
    auto* const message = memory.put<msghdr>();
    message->msg_iov = vector;
    message->msg_iovlen = 1;
    io_uring_prep_recv(ring.next(), ends.out, to, text.size(), 0);
    memory.away();
    ring.submit();
    memory.away();
    outcome.ok("send", send(ends.in, text.data(), text.size(), 0));
    outcome.ok("recv", ring.result());
    std::memset(to, 0, text.size());
    io_uring_prep_recvmsg(ring.next(), ends.out, message, 0);
    memory.away();
    ring.submit();
    memory.nudge();
    outcome.ok("send", send(ends.in, text.data(), text.size(), 0));
    outcome.ok("recvmsg", ring.result());
    memory.forget(vector);
    memory.forget(message);
}

void ring_names_case(Memory& memory, Outcome& outcome) {
    Ring ring;
    if (is_forbidden(ring, memory, outcome)) return;
    const char* const path = memory.text(scratch_folder() + "/by-ring");
    auto* const told = memory.put<struct statx>();
    auto* const timeout = memory.put<__kernel_timespec>({0, 1000});
    io_uring_prep_openat(ring.next(), AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    memory.away();
    ring.submit();
    outcome.check("openat", Fd(ring.result()) >= 0);
    io_uring_prep_statx(ring.next(), AT_FDCWD, path, 0, STATX_SIZE, told);
    memory.away();
    ring.submit();
    outcome.ok("statx", ring.result());
    outcome.note("size", static_cast<long>(told->stx_size));
    io_uring_prep_timeout(ring.next(), timeout, 0, 0);
    memory.away();
    ring.submit();
    outcome.note("timeout", ring.result());
    io_uring_prep_unlinkat(ring.next(), AT_FDCWD, path, 0);
    memory.away();
    ring.submit();
    outcome.ok("unlinkat", ring.result());
    memory.forget(told);
}

void ring_direct_case(Memory& memory, Outcome& outcome) {
    Ring ring;
    const Fd file = scratch_file(O_DIRECT);
    if (file < 0 || is_forbidden(ring, memory, outcome)) return;
    const std::size_t bytes = (memory.data_bytes() + page_bytes - 1) / page_bytes * page_bytes;
    std::byte* const from = memory.place_pages(bytes);
    std::byte* const to = memory.place_pages(bytes);
    fill_with_text(from, bytes, 3);
    fill_with_text(to, bytes, 4);
    io_uring_prep_write(ring.next(), file, from, static_cast<unsigned>(bytes), 0);
    memory.away();
    ring.submit();
    memory.nudge();
    outcome.ok("write", ring.result());
    io_uring_prep_read(ring.next(), file, to, static_cast<unsigned>(bytes), 0);
    memory.away();
    ring.submit();
    memory.nudge();
    outcome.ok("read", ring.result());
    outcome.check("arrived", std::memcmp(from, to, bytes) == 0);
}

// linux aio; everything it is told with is far too.
void aio_files(Memory& memory, Outcome& outcome, int file_flags) {
    const Fd file = scratch_file(file_flags);
    auto* const context = memory.put<aio_context_t>(0);
    memory.away();
    if (outcome.note("io_setup", syscall(SYS_io_setup, 4, context)) == -1 || file < 0) return;
    const aio_context_t number = *context;
    const std::size_t bytes = (memory.data_bytes() + page_bytes - 1) / page_bytes * page_bytes;
    std::byte* const from = memory.place_pages(bytes);
    std::byte* const to = memory.place_pages(bytes);
    fill_with_text(from, bytes, 3);
    fill_with_text(to, bytes, 4);
    auto* const request = memory.put<iocb>();
    auto** const list = memory.put<iocb*>(request);
    auto* const events = memory.put_all<io_event, 4>({});
    auto* const timeout = memory.put<timespec>({20, 0});
    for (const bool write_it : {true, false}) {
        request->aio_fildes = static_cast<std::uint32_t>(static_cast<int>(file));
        request->aio_lio_opcode = write_it ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
        request->aio_buf = reinterpret_cast<std::uint64_t>(write_it ? from : to);
        request->aio_nbytes = bytes;
        memory.away();
        outcome.ok("io_submit", syscall(SYS_io_submit, number, 1, list));
        memory.nudge();
        outcome.ok("io_getevents", syscall(SYS_io_getevents, number, 1, 4, events, timeout));
        outcome.note("result", static_cast<long>(events[0].res));
    }
    outcome.check("arrived", std::memcmp(from, to, bytes) == 0);
    outcome.ok("io_destroy", syscall(SYS_io_destroy, number));
    for (const void* object : {static_cast<void*>(context), static_cast<void*>(request),
                               static_cast<void*>(list), static_cast<void*>(events)})
        memory.forget(object);
}

void aio_case(Memory& memory, Outcome& outcome) {
    aio_files(memory, outcome, 0);
}
void aio_direct_case(Memory& memory, Outcome& outcome) {
    aio_files(memory, outcome, O_DIRECT);
}

// libc's: threads of its own that call pread and pwrite.
void posix_aio_case(Memory& memory, Outcome& outcome) {
    const Fd file = scratch_file();
    const std::byte* const from = memory.data(3);
    std::byte* const to = memory.room(memory.data_bytes());
    for (const bool write_it : {true, false}) {
        aiocb request = {};
        request.aio_fildes = file;
        request.aio_buf = write_it ? const_cast<std::byte*>(from) : to;
        request.aio_nbytes = memory.data_bytes();
        const aiocb* const list[] = {&request};
        memory.away();
        outcome.ok("start", write_it ? aio_write(&request) : aio_read(&request));
        while (aio_error(&request) == EINPROGRESS) aio_suspend(list, 1, nullptr);
        outcome.ok("result", aio_return(&request));
    }
}

constexpr Case cases[] = {
    {"Uring", Access::deferred, ring_case},
    {"UringWorkers", Access::deferred, ring_worker_case},
    {"UringPollThread", Access::deferred, ring_poll_thread_case},
    {"UringRegisteredBuffers", Access::deferred, registered_buffers_case},
    {"UringThatWaits", Access::deferred, ring_that_waits_case},
    {"UringNames", Access::deferred, ring_names_case, false},
    {"UringDirectIo", Access::deferred, ring_direct_case},
    {"Aio", Access::deferred, aio_case},
    {"AioDirectIo", Access::deferred, aio_direct_case},
    {"PosixAio", Access::synchronous, posix_aio_case},
};

}  // namespace

std::span<const Case> deferred_cases() {
    return cases;
}

}  // namespace kernel_access
