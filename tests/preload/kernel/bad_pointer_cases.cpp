// Addresses that are wrong stay wrong: the kernel's errno, and as much as it moved before it noticed.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

// Calls that take one address, each with one that is wrong.
void wrong_everywhere(Outcome& outcome, void* wrong) {
    const Fd file = text_file(100);
    const Ends ends = new_pipe(O_CLOEXEC | O_NONBLOCK);
    const Ends sockets = new_socketpair(SOCK_DGRAM | SOCK_NONBLOCK);
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    auto* const bytes = static_cast<char*>(wrong);
    outcome.note("read", read(file, wrong, 10));
    outcome.note("write", write(ends.in, wrong, 10));
    outcome.note("pread", pread(file, wrong, 10, 0));
    outcome.note("pwrite", pwrite(file, wrong, 10, 0));
    outcome.note("readv", readv(file, static_cast<iovec*>(wrong), 1));
    const iovec vector = {wrong, 10};
    outcome.note("writev", writev(ends.in, &vector, 1));
    outcome.note("open", open(bytes, O_RDONLY));
    outcome.note("stat", syscall(SYS_newfstatat, AT_FDCWD, bytes, wrong, 0));
    outcome.note("fstat", syscall(SYS_newfstatat, static_cast<int>(file), "", wrong, AT_EMPTY_PATH));
    outcome.note("getcwd", syscall(SYS_getcwd, wrong, 100));
    outcome.note("pipe2", syscall(SYS_pipe2, wrong, 0));
    outcome.note("poll", syscall(SYS_poll, wrong, 1, 0));
    outcome.note("epoll_ctl", syscall(SYS_epoll_ctl, static_cast<int>(epoll), EPOLL_CTL_ADD,
                                      static_cast<int>(ends.out), wrong));
    outcome.note("clock_gettime", syscall(SYS_clock_gettime, CLOCK_MONOTONIC, wrong));
    outcome.note("futex", syscall(SYS_futex, wrong, 0, 1, nullptr, nullptr, 0));
    outcome.note("sendto", sendto(sockets.in, wrong, 10, 0, nullptr, 0));
    outcome.note("recv", recv(sockets.out, wrong, 10, 0));
    outcome.note("getsockname", syscall(SYS_getsockname, static_cast<int>(sockets.in), wrong, wrong));
    outcome.note("uname", syscall(SYS_uname, wrong));
    outcome.note("getrandom", syscall(SYS_getrandom, wrong, 10, 0));
    outcome.note("nanosleep", syscall(SYS_nanosleep, wrong, nullptr));
    outcome.note("rt_sigprocmask", syscall(SYS_rt_sigprocmask, SIG_BLOCK, wrong, nullptr, 8));
    // A datagram that is taken from the queue and cannot be told is lost: as the kernel has it.
    outcome.ok("send", send(sockets.in, "datagram", 8, 0));
    outcome.note("recv of something", recv(sockets.out, wrong, 10, 0));
    outcome.note("recv of what is left", recv(sockets.out, wrong, 10, 0));
}

void forbidden_case(Memory& memory, Outcome& outcome) {
    memory.text("x");
    std::byte* const wrong = memory.forbidden_page();
    memory.away();
    wrong_everywhere(outcome, wrong + 8);
}

void unmapped_case(Memory& memory, Outcome& outcome) {
    memory.text("x");
    memory.away();
    void* const hole = mmap(nullptr, page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    wrong_everywhere(outcome, hole);
    munmap(hole, page_bytes);
    wrong_everywhere(outcome, nullptr);
    wrong_everywhere(outcome, reinterpret_cast<void*>(8));
    wrong_everywhere(outcome, reinterpret_cast<void*>(0x7fff'ffff'fff0));
    wrong_everywhere(outcome, reinterpret_cast<void*>(0x8000'0000'0000'0000));
    wrong_everywhere(outcome, reinterpret_cast<void*>(~std::uintptr_t{0} - 4));
}

// The heap's address space beyond its buffers is wrong too.
void freed_case(Memory& memory, Outcome& outcome) {
    memory.text("x");
    memory.away();
    constexpr std::size_t bytes = std::size_t{64} << 20;
    void* const freed = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    std::memset(freed, 'f', std::size_t{1} << 20);
    madvise(freed, bytes, MADV_PAGEOUT);
    munmap(freed, bytes);
    wrong_everywhere(outcome, freed);
}

// Good and far up to a page's end, wrong from there on.
void half_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(200000);
    const Fd written = scratch_file();
    const Ends ends = new_pipe(O_CLOEXEC | O_NONBLOCK);
    const Ends sockets = new_socketpair(SOCK_DGRAM | SOCK_NONBLOCK);
    const std::size_t good = (memory.data_bytes() + page_bytes - 1) / page_bytes * page_bytes;
    std::byte* const data = memory.place_pages(good);
    fill_with_text(data, good, 3);
    std::byte* const from = data + (good - memory.data_bytes());
    const std::size_t bytes = memory.data_bytes() + 5000;
    memory.forbidden_page();
    memory.away();
    outcome.note("write", write(written, from, bytes));
    memory.away();
    outcome.note("write to a pipe", write(ends.in, from, bytes));
    memory.away();
    outcome.note("send", send(sockets.in, from, bytes, 0));
    memory.away();
    outcome.note("read", pread(file, from, bytes, 0));
    const iovec vectors[] = {{from, memory.data_bytes()}, {from + memory.data_bytes(), 100}};
    memory.away();
    outcome.note("preadv", preadv(file, vectors, 2, 0));
    memory.away();
    outcome.note("pwritev", pwritev(written, vectors, 2, 0));
    memory.away();
    outcome.note("process_vm_readv", process_vm_readv(getpid(), vectors, 2, vectors, 2, 0));
    memory.forget(data);  // how far the kernel came before it noticed is its own affair
}

// A page that may be read and not written.
void read_only_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(100);
    const Fd written = scratch_file();
    std::byte* const data = memory.place_pages(page_bytes);
    fill_with_text(data, page_bytes, 3);
    outcome.ok("mprotect", mprotect(data, page_bytes, PROT_READ));
    memory.away();
    outcome.ok("write", write(written, data, 100));
    memory.away();
    outcome.note("read", pread(file, data, 100, 0));
    memory.away();
    outcome.note("recv", syscall(SYS_clock_gettime, CLOCK_MONOTONIC, data));
    outcome.ok("mprotect", mprotect(data, page_bytes, PROT_READ | PROT_WRITE));
}

constexpr Case cases[] = {
    {"BadForbidden", Access::synchronous, forbidden_case, false},
    {"BadUnmapped", Access::synchronous, unmapped_case, false},
    {"BadFreed", Access::synchronous, freed_case, false},
    {"BadHalf", Access::synchronous, half_case},
    {"BadReadOnly", Access::synchronous, read_only_case, false},
};

}  // namespace

std::span<const Case> bad_pointer_cases() {
    return cases;
}

}  // namespace kernel_access
