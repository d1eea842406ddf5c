// The system calls that servers make all day, as functions of ours: they hold their buffers themselves, and
// being made from this library's text they are not dispatched. Without a shield there is nothing to hold, and
// they cost what libc's cost.
//
// As libc's they are cancellation points: while the call is under way the thread can be cancelled at any
// instruction, and an unwinder passes through this file, which is compiled without exceptions.
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <cerrno>

#include "preload/shield/held_call.h"
#include "runtime/os/system_call.h"

#define PN_ENTRY extern "C" [[gnu::visibility("default")]]

namespace {

using namespace pnode;

template <class... Arguments>
long wrapped(long number, Arguments... arguments) {
    const long all[6] = {os::argument(arguments)...};
    int type = PTHREAD_CANCEL_DEFERRED;
    const bool alone = __libc_single_threaded != 0;
    if (!alone) ::pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
    const long result = preload::held_call(number, all, nullptr);
    if (!alone) ::pthread_setcanceltype(type, nullptr);
    if (!os::is_error(result)) return result;
    errno = static_cast<int>(-result);
    return -1;
}

}  // namespace

PN_ENTRY ssize_t read(int fd, void* buffer, std::size_t bytes) {
    return wrapped(SYS_read, fd, buffer, bytes);
}
PN_ENTRY ssize_t write(int fd, const void* buffer, std::size_t bytes) {
    return wrapped(SYS_write, fd, buffer, bytes);
}
PN_ENTRY ssize_t pread(int fd, void* buffer, std::size_t bytes, off_t offset) {
    return wrapped(SYS_pread64, fd, buffer, bytes, offset);
}
PN_ENTRY ssize_t pread64(int fd, void* buffer, std::size_t bytes, off64_t offset) {
    return wrapped(SYS_pread64, fd, buffer, bytes, offset);
}
PN_ENTRY ssize_t pwrite(int fd, const void* buffer, std::size_t bytes, off_t offset) {
    return wrapped(SYS_pwrite64, fd, buffer, bytes, offset);
}
PN_ENTRY ssize_t pwrite64(int fd, const void* buffer, std::size_t bytes, off64_t offset) {
    return wrapped(SYS_pwrite64, fd, buffer, bytes, offset);
}
PN_ENTRY ssize_t readv(int fd, const iovec* vector, int count) {
    return wrapped(SYS_readv, fd, vector, count);
}
PN_ENTRY ssize_t writev(int fd, const iovec* vector, int count) {
    return wrapped(SYS_writev, fd, vector, count);
}
PN_ENTRY ssize_t recv(int fd, void* buffer, std::size_t bytes, int flags) {
    return wrapped(SYS_recvfrom, fd, buffer, bytes, flags);
}
PN_ENTRY ssize_t send(int fd, const void* buffer, std::size_t bytes, int flags) {
    return wrapped(SYS_sendto, fd, buffer, bytes, flags);
}
PN_ENTRY ssize_t recvfrom(int fd, void* buffer, std::size_t bytes, int flags, sockaddr* address,
                          socklen_t* length) {
    return wrapped(SYS_recvfrom, fd, buffer, bytes, flags, address, length);
}
PN_ENTRY ssize_t sendto(int fd, const void* buffer, std::size_t bytes, int flags, const sockaddr* address,
                        socklen_t length) {
    return wrapped(SYS_sendto, fd, buffer, bytes, flags, address, length);
}
PN_ENTRY ssize_t recvmsg(int fd, msghdr* message, int flags) {
    return wrapped(SYS_recvmsg, fd, message, flags);
}
PN_ENTRY ssize_t sendmsg(int fd, const msghdr* message, int flags) {
    return wrapped(SYS_sendmsg, fd, message, flags);
}
PN_ENTRY int poll(pollfd* descriptors, nfds_t count, int wait_ms) {
    return static_cast<int>(wrapped(SYS_poll, descriptors, count, wait_ms));
}
PN_ENTRY int epoll_wait(int fd, epoll_event* events, int events_max, int wait_ms) {
    return static_cast<int>(wrapped(SYS_epoll_wait, fd, events, events_max, wait_ms));
}
