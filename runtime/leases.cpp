#include "runtime/leases.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "runtime/os/descriptors.h"

namespace pnode {

void Leases::prepare(cxl::BlobStore& store) noexcept {
    store.lease_all_locked();
    int ends[2] = {-1, -1};
    if (count_ < leases_max && ::pipe2(ends, O_CLOEXEC) == 0) {
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
        pollfd end{read_ends_[index], POLLIN, 0};
        if (::poll(&end, 1, 0) > 0 && (end.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
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
