#include "runtime/leases.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>

#include <ctime>

#include "runtime/os/descriptors.h"
#include "runtime/os/system_call.h"

// The system calls are made here and not by libc: under the preload library's shield each of libc's would be
// a signal first, and fork() waits for these.
namespace pnode {
namespace {

bool has_hung_up(int read_end) noexcept {
    pollfd end{read_end, POLLIN, 0};
    const timespec at_once{};
    return os::system_call(SYS_ppoll, &end, 1, &at_once, nullptr, 0) > 0 &&
           (end.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

}  // namespace

void Leases::prepare(cxl::BlobStore& store) noexcept {
    store.lease_all_locked();
    int ends[2] = {-1, -1};
    if (count_ < leases_max && os::system_call(SYS_pipe2, &ends[0], O_CLOEXEC) == 0) {
        new_read_end_ = os::raise_descriptor(ends[0]);
        new_write_end_ = os::raise_descriptor(ends[1]);
    }
}

void Leases::parent() noexcept {
    os::close_descriptor(new_write_end_);
    if (new_read_end_ >= 0 && new_write_end_ >= 0) {
        read_ends_[count_++] = new_read_end_;
    } else {
        os::close_descriptor(new_read_end_);
        ++permanent_;
    }
    new_read_end_ = new_write_end_ = -1;
}

void Leases::child() noexcept {
    os::close_descriptor(new_read_end_);
    for (unsigned index = 0; index < count_; ++index) os::close_descriptor(read_ends_[index]);
    new_read_end_ = new_write_end_ = -1;
    count_ = 0;
    permanent_ = 0;
}

unsigned Leases::expire(cxl::BlobStore& store) noexcept {
    for (unsigned index = 0; index < count_;) {
        if (has_hung_up(read_ends_[index])) {
            os::close_descriptor(read_ends_[index]);
            read_ends_[index] = read_ends_[--count_];
            store.end_lease();
        } else {
            ++index;
        }
    }
    return count();
}

void Leases::close() noexcept {
    while (count_ != 0) os::close_descriptor(read_ends_[--count_]);
}

}  // namespace pnode
