#include "preload/shield/held_call.h"

#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "preload/shield/call_table.h"
#include "preload/shield/open_call.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/os/system_call.h"

namespace pnode::preload {
namespace {

using os::system_call;

constexpr std::uint64_t text_bytes_max = 128 << 10;  // MAX_ARG_STRLEN
constexpr std::uint64_t entries_max = 1024;          // UIO_MAXIOV
constexpr std::uint64_t texts_max = 1 << 16;
constexpr std::uint64_t piece_bytes = std::uint64_t{1}
                                      << 20;  // of a large file transfer that is held at once
constexpr unsigned faults_max = 8;

// Reads and writes of the calling process's memory that fail instead of faulting.
long copy_self(long call, void* here, unsigned long there, unsigned long bytes) noexcept {
    const iovec local{here, bytes};
    const iovec remote{reinterpret_cast<void*>(there), bytes};
    return system_call(call, system_call(SYS_getpid), &local, 1, &remote, 1, 0);
}

// Everything that one call points to.
class Pointers {
  public:
    Pointers(long number, const long (&arguments)[6], bool dispatched) noexcept
        : number_(number), dispatched_(dispatched), returns_(number != SYS_execve && number != SYS_execveat) {
        std::copy(std::begin(arguments), std::end(arguments), std::begin(arguments_));
    }
    void hold() noexcept;
    // Is there something that was not near any more? It is now.
    bool hold_again() noexcept {
        absent_ = 0;
        if (!returns_) hold();
        return (returns_ ? hold_.look_again() : absent_) != 0;
    }
    const long (&arguments() const noexcept)[6] { return arguments_; }
    const unsigned long* temporary_mask() const noexcept { return replaced_ ? &set_ : nullptr; }
    Hold& held() noexcept { return hold_; }

  private:
    std::uint64_t value(unsigned index) const noexcept {
        return static_cast<std::uint64_t>(arguments_[index]);
    }
    bool read(void* to, std::uint64_t from, std::uint64_t bytes) noexcept;
    void add(std::uint64_t address, std::uint64_t bytes) noexcept {
        if (address == 0) return;
        absent_ += returns_ ? hold_.add(address, bytes) : Hold::bring_near(address, bytes);
    }
    void add_argument(const Argument& argument) noexcept;
    void add_text(std::uint64_t address) noexcept;
    void add_texts(std::uint64_t address) noexcept;
    void add_vector(std::uint64_t address, std::uint64_t count, bool contents) noexcept;
    void add_message(std::uint64_t address) noexcept;
    void add_messages(std::uint64_t address, std::uint64_t count) noexcept;
    void add_blocks(std::uint64_t address, std::uint64_t count) noexcept;
    void add_block(std::uint64_t address) noexcept;
    void add_filter(std::uint64_t address) noexcept;
    void add_io_control(std::uint64_t address) noexcept;
    void add_waiters(std::uint64_t address, std::uint64_t count) noexcept;
    void add_sized_behind(std::uint64_t address, std::uint64_t length_at) noexcept;
    void replace_set(unsigned index) noexcept;
    void replace_packed_set(unsigned index) noexcept;

    const long number_;
    const bool dispatched_;
    const bool returns_;
    std::uint64_t absent_ = 0;
    long arguments_[6];
    Hold hold_;
    bool replaced_ = false;
    unsigned long set_ = 0;
    struct {
        const unsigned long* set;
        unsigned long bytes;
    } packed_set_{};
};

bool Pointers::read(void* to, std::uint64_t from, std::uint64_t bytes) noexcept {
    add(from, bytes);
    // What one of our entries is told lies beside its frame is there, and need not be asked for by a system
    // call.
    constexpr std::uint64_t frames_bytes = 64 << 10;
    const auto here = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
    if (dispatched_ || from - here > frames_bytes - bytes) return peek(to, from, bytes);
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return true;
}

// Page by page to its end; in memory that is not managed there is nothing to do.
void Pointers::add_text(std::uint64_t address) noexcept {
    char piece[256];
    for (std::uint64_t done = 0; done < text_bytes_max && Hold::may_be_managed(address + done, 1);) {
        const std::uint64_t bytes = std::min(sizeof piece, page_bytes - (address + done) % page_bytes);
        if (!read(piece, address + done, bytes) || std::memchr(piece, 0, bytes) != nullptr) return;
        done += bytes;
    }
}

void Pointers::add_texts(std::uint64_t address) noexcept {
    for (std::uint64_t index = 0; address != 0 && index < texts_max; ++index) {
        std::uint64_t text = 0;
        if (!read(&text, address + index * sizeof text, sizeof text) || text == 0) return;
        add_text(text);
    }
}

void Pointers::add_vector(std::uint64_t address, std::uint64_t count, bool contents) noexcept {
    constexpr std::uint64_t piece = 32;
    iovec vector[piece]{};
    count = std::min(count, entries_max);
    for (std::uint64_t done = 0; done < count; done += piece) {
        const std::uint64_t now = std::min(piece, count - done);
        if (!read(vector, address + done * sizeof(iovec), now * sizeof(iovec))) return;
        for (std::uint64_t index = 0; contents && index < now; ++index)
            add(reinterpret_cast<std::uint64_t>(vector[index].iov_base), vector[index].iov_len);
    }
}

void Pointers::add_message(std::uint64_t address) noexcept {
    msghdr message{};
    if (!read(&message, address, sizeof message)) return;
    add(reinterpret_cast<std::uint64_t>(message.msg_name), message.msg_namelen);
    add(reinterpret_cast<std::uint64_t>(message.msg_control), message.msg_controllen);
    add_vector(reinterpret_cast<std::uint64_t>(message.msg_iov), message.msg_iovlen, true);
}

void Pointers::add_messages(std::uint64_t address, std::uint64_t count) noexcept {
    add(address, std::min(count, entries_max) * sizeof(mmsghdr));
    for (std::uint64_t index = 0; index < std::min(count, entries_max); ++index)
        add_message(address + index * sizeof(mmsghdr));
}

void Pointers::add_blocks(std::uint64_t address, std::uint64_t count) noexcept {
    for (std::uint64_t index = 0; index < std::min(count, entries_max); ++index) {
        std::uint64_t block = 0;
        if (!read(&block, address + index * sizeof block, sizeof block)) return;
        add_block(block);
    }
}

void Pointers::add_block(std::uint64_t address) noexcept {
    iocb block{};
    if (!read(&block, address, sizeof block)) return;
    const bool vectored = block.aio_lio_opcode == IOCB_CMD_PREADV || block.aio_lio_opcode == IOCB_CMD_PWRITEV;
    if (vectored) add_vector(block.aio_buf, block.aio_nbytes, true);
    if (!vectored) add(block.aio_buf, block.aio_nbytes);
}

void Pointers::add_filter(std::uint64_t address) noexcept {
    sock_fprog program{};
    if (address == 0 || !read(&program, address, sizeof program)) return;
    add(reinterpret_cast<std::uint64_t>(program.filter), program.len * sizeof(sock_filter));
}

// What the program's own userfaultfd copies in is looked at by the kernel too.
void Pointers::add_io_control(std::uint64_t address) noexcept {
    uffdio_copy copy{};
    add(address, std::max<std::uint64_t>(_IOC_SIZE(value(1)), unlisted_bytes));
    if (value(1) == UFFDIO_COPY && read(&copy, address, sizeof copy)) add(copy.src, copy.len);
}

void Pointers::add_waiters(std::uint64_t address, std::uint64_t count) noexcept {
    struct {
        std::uint64_t expected, word;
        std::uint32_t flags, reserved;
    } waiter{};
    for (std::uint64_t index = 0; index < std::min<std::uint64_t>(count, 128); ++index) {
        if (!read(&waiter, address + index * sizeof waiter, sizeof waiter)) return;
        add(waiter.word, sizeof(std::uint64_t));
    }
}

void Pointers::add_sized_behind(std::uint64_t address, std::uint64_t length_at) noexcept {
    std::int32_t bytes = 0;
    if (address == 0 || !read(&bytes, length_at, sizeof bytes) || bytes < 0) return;
    add(address, static_cast<std::uint64_t>(bytes));
}

void Pointers::replace_set(unsigned index) noexcept {
    const std::uint64_t address = value(index);
    if (address == 0 || !read(&set_, address, sizeof set_)) return;
    set_ &= ~os::signals_left_open;
    replaced_ = true;
    arguments_[index] = os::argument(&set_);
}

void Pointers::replace_packed_set(unsigned index) noexcept {
    const std::uint64_t address = value(index);
    if (address == 0 || !read(&packed_set_, address, sizeof packed_set_)) return;
    const auto set = reinterpret_cast<std::uint64_t>(packed_set_.set);
    if (set == 0 || packed_set_.bytes != sizeof set_ || !read(&set_, set, sizeof set_)) return;
    set_ &= ~os::signals_left_open;
    replaced_ = true;
    packed_set_.set = &set_;
    arguments_[index] = os::argument(&packed_set_);
}

void Pointers::add_argument(const Argument& argument) noexcept {
    const std::uint64_t address = value(argument.index);
    switch (argument.shape) {
        case Shape::bytes:
            return add(address, argument.amount);
        case Shape::sized:
            return add(address, value(argument.amount));
        case Shape::sized_behind:
            return add_sized_behind(address, value(argument.amount));
        case Shape::pages_of:
            return add(address, (value(argument.amount) + page_bytes - 1) / page_bytes);
        case Shape::text:
            return add_text(address);
        case Shape::bits:
            return add(address, (std::min<std::uint64_t>(value(0), 1 << 20) + 63) / 64 * 8);
        case Shape::array:
            return add(address, (value(argument.other) & 0xffffffff) * argument.amount);
        case Shape::vector:
            return add_vector(address, value(argument.amount), true);
        case Shape::remote_vector:  // the other process may be this one
            return add_vector(address, value(argument.amount), arguments_[0] == system_call(SYS_getpid));
        case Shape::message:
            return add_message(address);
        case Shape::messages:
            return add_messages(address, value(argument.amount) & 0xffffffff);
        case Shape::message_queue:
            return add(address, sizeof(long) + value(argument.amount));
        case Shape::blocks:
            return add_blocks(address, value(argument.other));
        case Shape::texts:
            return add_texts(address);
        case Shape::waiters:
            return add_waiters(address, value(argument.amount));
        case Shape::filter:
            return add_filter(address);
        case Shape::io_control:
            return add_io_control(address);
        case Shape::set:
            return replace_set(argument.index);
        case Shape::packed_set:
            return replace_packed_set(argument.index);
    }
}

void Pointers::hold() noexcept {
    bool listed = false;
    for (const Argument& argument : arguments_of(number_, &listed)) add_argument(argument);
    if (!listed) {
        for (unsigned index = 0; index < 6; ++index) add(value(index), unlisted_bytes);
    }
    if (number_ == SYS_pselect6) replace_packed_set(5);  // a fifth pointer, the only call with so many
}

unsigned long mask_during(long number, const ucontext_t& program) noexcept {
    unsigned long mask = 0;
    std::memcpy(&mask, &program.uc_sigmask, sizeof mask);
    // A new program starts with what this one has blocked in name, too.
    const bool starts = number == SYS_execve || number == SYS_execveat;
    return starts ? mask | os::signals_blocked_in_name : mask;
}

// `done`: bytes that calls before this one transferred.
long call_once(long number, const long (&arguments)[6], ucontext_t* dispatched, long done) noexcept {
    Pointers pointers(number, arguments, dispatched != nullptr);
    pointers.hold();
    for (unsigned faults = 0;; ++faults) {
        const long(&a)[6] = pointers.arguments();
        long result = 0;
        if (dispatched != nullptr) {
            OpenCall call{dispatched,
                          number,
                          done,
                          &pointers.held(),
                          pointers.temporary_mask(),
                          mask_during(number, *dispatched)};
            result = make_open_call(call, a);
        } else {
            result = os::system_call_6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        }
        // The hold was lost (holds.h: frames, threads), or the pointer is bad.
        if (result != -EFAULT || faults == faults_max || !pointers.hold_again()) return result;
    }
}

bool is_file(long fd) noexcept {
    struct stat status {};
    if (os::is_error(system_call(SYS_fstat, fd, &status))) return false;
    return S_ISREG(status.st_mode) || S_ISBLK(status.st_mode);
}

// A file is read and written in pieces, so that a buffer larger than the near limit need not be near at once.
// Anything else (a datagram!) takes the whole buffer or none of it.
long call_in_pieces(long number, const long (&arguments)[6], ucontext_t* dispatched) noexcept {
    long piece[6];
    std::copy(std::begin(arguments), std::end(arguments), std::begin(piece));
    long done = 0;
    while (done < arguments[2]) {
        piece[1] = arguments[1] + done;
        piece[2] = std::min<long>(arguments[2] - done, piece_bytes);
        if (number == SYS_pread64 || number == SYS_pwrite64) piece[3] = arguments[3] + done;
        const long result = call_once(number, piece, dispatched, done);
        if (result < 0) return done != 0 ? done : result;
        done += result;
        if (result < piece[2]) break;
    }
    return done;
}

bool is_large_transfer(long number, const long (&arguments)[6]) noexcept {
    constexpr long bytes_max = 0x7ffff000;  // the kernel's own
    const bool plain =
        number == SYS_read || number == SYS_write || number == SYS_pread64 || number == SYS_pwrite64;
    return plain && arguments[2] > static_cast<long>(piece_bytes) && arguments[2] <= bytes_max &&
           Hold::may_be_managed(static_cast<std::uint64_t>(arguments[1]),
                                static_cast<std::uint64_t>(arguments[2]));
}

}  // namespace

bool peek(void* to, unsigned long from, unsigned long bytes) noexcept {
    const long done = copy_self(SYS_process_vm_readv, to, from, bytes);
    if (done != -EPERM && done != -ENOSYS) return done == static_cast<long>(bytes);
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);  // a sandbox that forbids it
    return true;
}

bool poke(unsigned long to, const void* from, unsigned long bytes) noexcept {
    const long done = copy_self(SYS_process_vm_writev, const_cast<void*>(from), to, bytes);
    if (done != -EPERM && done != -ENOSYS) return done == static_cast<long>(bytes);
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return true;
}

long held_call(long number, const long (&arguments)[6], ucontext_t* dispatched) noexcept {
    if (is_large_transfer(number, arguments) && is_file(arguments[0]))
        return call_in_pieces(number, arguments, dispatched);
    return call_once(number, arguments, dispatched, 0);
}

}  // namespace pnode::preload
