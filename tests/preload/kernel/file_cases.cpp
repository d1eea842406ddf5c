// Contents of files and pipes.
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include <algorithm>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

// The data in up to three parts, so that vectors begin and end inside of pages.
std::array<iovec, 3> in_parts(std::byte* data, std::size_t bytes) {
    std::array<iovec, 3> parts = {};
    const std::size_t step = bytes / 3 + 1;
    for (std::size_t i = 0, at = 0; i < parts.size(); ++i, at += step) {
        const std::size_t from = std::min(at, bytes);
        parts[i] = {data + from, std::min(step, bytes - from)};
    }
    return parts;
}

// What was written, read back into plain memory.
void note_file(Outcome& outcome, int file, std::size_t bytes, off_t offset = 0) {
    std::string text(bytes + 1, '\0');
    outcome.note("length", pread(file, text.data(), text.size(), offset));
    outcome.text("file", text);
}

// A stream may move less than was asked for; what matters is that no byte is lost.
template <class Move>
long move_all(std::byte* at, std::size_t bytes, Move move) {
    std::size_t done = 0;
    while (done < bytes) {
        const ssize_t moved = move(at + done, bytes - done);
        if (moved == -1) return -1;
        if (moved == 0) break;
        done += static_cast<std::size_t>(moved);
    }
    return static_cast<long>(done);
}

void read_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(memory.data_bytes() + 10);
    std::byte* const to = memory.room(memory.data_bytes());
    memory.away();
    outcome.ok("read", read(file, to, memory.data_bytes()));
    memory.away();
    outcome.ok("at the end", read(file, to, memory.data_bytes()));
    memory.away();
    outcome.note("past the end", read(file, to, memory.data_bytes()));
}

void write_case(Memory& memory, Outcome& outcome) {
    const Fd file = scratch_file();
    const std::byte* const from = memory.data(3);
    memory.away();
    outcome.ok("write", write(file, from, memory.data_bytes()));
    note_file(outcome, file, memory.data_bytes());
}

void pread_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(memory.data_bytes() + 777);
    std::byte* const to = memory.room(memory.data_bytes());
    memory.away();
    outcome.ok("pread", pread(file, to, memory.data_bytes(), 777));
}

void pwrite_case(Memory& memory, Outcome& outcome) {
    const Fd file = scratch_file();
    const std::byte* const from = memory.data(3);
    memory.away();
    outcome.ok("pwrite", pwrite(file, from, memory.data_bytes(), 777));
    note_file(outcome, file, memory.data_bytes(), 777);
}

void readv_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(memory.data_bytes());
    const iovec* const parts =
        memory.put_all(in_parts(memory.room(memory.data_bytes()), memory.data_bytes()));
    memory.away();
    outcome.ok("readv", readv(file, parts, 3));
    memory.away();
    outcome.ok("preadv", preadv(file, parts, 3, 0));
    memory.away();
    outcome.ok("preadv2", preadv2(file, parts, 3, 0, 0));
    memory.forget(parts);
}

void writev_case(Memory& memory, Outcome& outcome) {
    const Fd file = scratch_file();
    const iovec* const parts = memory.put_all(in_parts(memory.data(3), memory.data_bytes()));
    memory.away();
    outcome.ok("writev", writev(file, parts, 3));
    memory.away();
    outcome.ok("pwritev", pwritev(file, parts, 3, 100000));
    memory.away();
    outcome.ok("pwritev2", pwritev2(file, parts, 3, 200000, RWF_DSYNC));
    for (const off_t offset : {0, 100000, 200000}) note_file(outcome, file, memory.data_bytes(), offset);
    memory.forget(parts);
}

void pipe_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_pipe(O_CLOEXEC | O_NONBLOCK);
    std::byte* const from = memory.data(3);
    std::byte* const to = memory.room(memory.data_bytes());
    memory.away();
    outcome.ok("write", move_all(from, memory.data_bytes(),
                                 [&](auto* at, std::size_t bytes) { return write(ends.in, at, bytes); }));
    memory.away();
    outcome.ok("read", move_all(to, memory.data_bytes(),
                                [&](auto* at, std::size_t bytes) { return read(ends.out, at, bytes); }));
}

void blocked_pipe_read_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_pipe();
    std::byte* const to = memory.room(memory.data_bytes());
    std::string text(std::min<std::size_t>(memory.data_bytes(), 4096), 'p');
    memory.away();
    outcome.ok("read", while_asleep(
                           memory, [&] { return read(ends.out, to, memory.data_bytes()); },
                           [&] { outcome.ok("write", write(ends.in, text.data(), text.size())); }));
}

void blocked_pipe_write_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_pipe();
    std::string full(65536, 'f');
    outcome.ok("fill", write(ends.in, full.data(), full.size()));
    std::byte* const from = memory.data(3);
    std::string taken(memory.data_bytes() + full.size(), '\0');
    memory.away();
    outcome.ok("write", while_asleep(
                            memory, [&] { return write(ends.in, from, memory.data_bytes()); },
                            [&] {
                                outcome.ok("read", move_all(reinterpret_cast<std::byte*>(taken.data()),
                                                            taken.size(), [&](auto* at, std::size_t bytes) {
                                                                return read(ends.out, at, bytes);
                                                            }));
                            }));
    outcome.text("taken", taken);
}

void sendfile_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(10000);
    const Fd to = scratch_file();
    off_t* const offset = memory.put<off_t>(1234);
    memory.away();
    outcome.ok("sendfile", sendfile(to, file, offset, 5000));
    note_file(outcome, to, 5000);
}

void splice_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(10000);
    const Fd to = scratch_file();
    const Ends ends = new_pipe();
    off_t* const from_offset = memory.put<off_t>(1234);
    off_t* const to_offset = memory.put<off_t>(77);
    memory.away();
    outcome.ok("into a pipe", splice(file, from_offset, ends.in, nullptr, 5000, 0));
    memory.away();
    outcome.ok("out of it", splice(ends.out, nullptr, to, to_offset, 5000, 0));
    note_file(outcome, to, 5000, 77);
}

void copy_file_range_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(10000);
    const Fd to = scratch_file();
    off_t* const from_offset = memory.put<off_t>(1234);
    off_t* const to_offset = memory.put<off_t>(77);
    memory.away();
    outcome.ok("copy_file_range", copy_file_range(file, from_offset, to, to_offset, 5000, 0));
    note_file(outcome, to, 5000, 77);
}

// The pipe holds the pages, not their bytes. They may leave before somebody reads it.
void vmsplice_in_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_pipe();
    fcntl(ends.in, F_SETPIPE_SZ, 1 << 20);
    const iovec* const parts = memory.put_all(in_parts(memory.data(3), memory.data_bytes()));
    memory.away();
    const long moved = outcome.ok("vmsplice", vmsplice(ends.in, parts, 3, SPLICE_F_NONBLOCK));
    memory.nudge();
    std::string taken(static_cast<std::size_t>(std::max(moved, 0L)), '\0');
    outcome.ok("read", read(ends.out, taken.data(), taken.size()));
    outcome.text("taken", taken);
    memory.forget(parts);
}

void vmsplice_out_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_pipe();
    std::string text(std::min<std::size_t>(memory.data_bytes(), 65536), '\0');
    fill_with_text(text.data(), text.size(), 8);
    outcome.ok("write", write(ends.in, text.data(), text.size()));
    const iovec* const parts =
        memory.put_all(in_parts(memory.room(memory.data_bytes()), memory.data_bytes()));
    memory.away();
    outcome.ok("vmsplice", vmsplice(ends.out, parts, 3, SPLICE_F_NONBLOCK));
    memory.forget(parts);
}

void getrandom_case(Memory& memory, Outcome& outcome) {
    const std::size_t bytes = memory.data_bytes();
    std::byte* const to = memory.room(bytes);
    memory.away();
    outcome.ok("getrandom", getrandom(to, bytes, 0));
    const auto zeros = static_cast<std::size_t>(std::count(to, to + bytes, std::byte{0}));
    outcome.check("random", bytes < 50 || zeros < bytes / 8);
    std::memset(to, 0, bytes);
    const Fd device(open("/dev/urandom", O_RDONLY | O_CLOEXEC));
    memory.away();
    outcome.ok("/dev/urandom", read(device, to, bytes));
    std::memset(to, 0, bytes);
}

void direct_case(Memory& memory, Outcome& outcome) {
    const Fd file = scratch_file(O_DIRECT);
    if (file < 0) {
        outcome.note("open", -1);  // a file system without it; the pages go away all the same
        memory.data(3);
        memory.away();
        return;
    }
    const std::size_t bytes = (memory.data_bytes() + page_bytes - 1) / page_bytes * page_bytes;
    std::byte* const from = memory.place_pages(bytes);
    std::byte* const to = memory.place_pages(bytes);
    fill_with_text(from, bytes, 3);
    fill_with_text(to, bytes, 4);
    memory.away();
    outcome.ok("pwrite", pwrite(file, from, bytes, 0));
    memory.away();
    outcome.ok("pread", pread(file, to, bytes, 0));
    outcome.check("arrived", std::memcmp(from, to, bytes) == 0);
}

void seek_and_lock_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(1000);
    auto* const lock =
        reinterpret_cast<struct flock*>(memory.room(sizeof(struct flock), alignof(struct flock)));
    lock->l_type = F_WRLCK;
    lock->l_start = 10;
    lock->l_len = 20;
    memory.away();
    outcome.ok("F_OFD_SETLK", fcntl(file, F_OFD_SETLK, lock));
    const Fd other(open(("/proc/self/fd/" + std::to_string(file)).c_str(), O_RDWR | O_CLOEXEC));
    memory.away();
    outcome.ok("F_OFD_GETLK", fcntl(other, F_OFD_GETLK, lock));
    memory.away();
    outcome.note("refused", fcntl(other, F_OFD_SETLK, lock));
    memory.away();
    outcome.note("F_SETLK", fcntl(other, F_SETLK, lock));
}

void ioctl_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_pipe();
    outcome.ok("write", write(ends.in, "12345", 5));
    int* const value = memory.put(0);
    memory.away();
    outcome.ok("FIONREAD", ioctl(ends.out, FIONREAD, value));
    *value = 1;
    memory.away();
    outcome.ok("FIONBIO", ioctl(ends.out, FIONBIO, value));
    outcome.note("flags", fcntl(ends.out, F_GETFL) & O_NONBLOCK);
}

constexpr Case cases[] = {
    {"Read", Access::synchronous, read_case},
    {"Write", Access::synchronous, write_case},
    {"Pread", Access::synchronous, pread_case},
    {"Pwrite", Access::synchronous, pwrite_case},
    {"ReadvPreadvPreadv2", Access::synchronous, readv_case},
    {"WritevPwritevPwritev2", Access::synchronous, writev_case},
    {"Pipe", Access::synchronous, pipe_case},
    {"PipeReadThatWaits", Access::asleep, blocked_pipe_read_case},
    {"PipeWriteThatWaits", Access::asleep, blocked_pipe_write_case},
    {"SendfileOffset", Access::synchronous, sendfile_case, false},
    {"SpliceOffsets", Access::synchronous, splice_case, false},
    {"CopyFileRangeOffsets", Access::synchronous, copy_file_range_case, false},
    {"VmspliceIntoAPipe", Access::synchronous, vmsplice_in_case},
    {"VmspliceOutOfAPipe", Access::synchronous, vmsplice_out_case},
    {"Getrandom", Access::synchronous, getrandom_case},
    {"DirectIo", Access::synchronous, direct_case},
    {"FileLocks", Access::synchronous, seek_and_lock_case, false},
    {"Ioctl", Access::synchronous, ioctl_case, false},
};

}  // namespace

std::span<const Case> file_cases() {
    return cases;
}

}  // namespace kernel_access
