#include "compress/iaa/queue.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "compress/iaa/instructions.h"

namespace pnode::compress::iaa {
namespace {

constexpr unsigned errors_max = 3;
constexpr int descriptor_min = 101;     // numbers below are the program's
constexpr int unlimited = INT_MAX / 2;  // a queue that answers "busy" itself needs no counting
constexpr int drain_wait_ms = 2000;

#if defined(__SANITIZE_THREAD__)
constexpr bool sees_direct_stores = false;  // a sanitizer does not know the instruction
#elif defined(__has_feature)
constexpr bool sees_direct_stores = !__has_feature(thread_sanitizer);
#else
constexpr bool sees_direct_stores = true;
#endif

}  // namespace

const char* name_of(Transport transport) noexcept {
    constexpr const char* names[] = {"none", "movdir64b", "enqcmd", "write", "model portal"};
    return names[static_cast<unsigned>(transport)];
}

bool WorkQueue::open(const QueueInfo& info, std::string* message) {
    const int fd = ::open(info.path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, descriptor_min);
        ::close(fd);
    }
    if (fd < 0 || fd_ < 0) {
        *message = info.name + ": open: " + std::strerror(errno);
        return false;
    }
    name_ = info.name;
    block_on_fault_ = info.block_on_fault;
    credits_.store(info.dedicated ? static_cast<int>(info.size) : unlimited);
    // Refused (EPERM) without CAP_SYS_RAWIO on devices that user space could harm; write(2) is then the way.
    const bool direct = info.dedicated ? instructions().movdir64b : instructions().enqcmd;
    void* const portal =
        direct ? ::mmap(nullptr, portal_bytes, PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, 0) : MAP_FAILED;
    owns_portal_ = portal != MAP_FAILED;
    portal_ = owns_portal_ ? portal : nullptr;
    transport_ = !owns_portal_ ? Transport::write : info.dedicated ? Transport::movdir64b : Transport::enqcmd;
    return true;
}

void WorkQueue::open_model_portal(void* portal, unsigned size) noexcept {
    name_ = "model";
    is_model_ = true;
    portal_ = portal;
    credits_.store(static_cast<int>(size));
    transport_ = Transport::model_portal;
}

void WorkQueue::open_model_socket(int fd) noexcept {
    name_ = "model";
    is_model_ = true;
    fd_ = fd;
    credits_.store(unlimited);
    transport_ = Transport::write;
}

void WorkQueue::close() noexcept {
    if (is_model_ && fd_ >= 0) drain_model();
    if (owns_portal_) ::munmap(portal_, portal_bytes);
    if (fd_ >= 0) ::close(fd_);
    forget();
}

void WorkQueue::forget() noexcept {
    transport_ = Transport::none;
    owns_portal_ = false;
    is_model_ = false;
    portal_ = nullptr;
    fd_ = -1;
    errors_in_a_row_.store(0, std::memory_order_relaxed);
    retired_.store(false, std::memory_order_relaxed);
}

// The other end closes its own when it is done with everything that it read.
void WorkQueue::drain_model() noexcept {
    ::shutdown(fd_, SHUT_WR);
    pollfd closed = {fd_, POLLIN, 0};
    ::poll(&closed, 1, drain_wait_ms);
}

bool WorkQueue::take_credit() noexcept {
    int credits = credits_.load(std::memory_order_relaxed);
    while (credits > 0) {
        if (credits_.compare_exchange_weak(credits, credits - 1, std::memory_order_relaxed)) return true;
    }
    return false;
}

Submitted WorkQueue::submit(const Descriptor& descriptor, unsigned slot) noexcept {
    if (!is_usable()) return Submitted::lost;
    if (!take_credit()) return Submitted::busy;
    void* const place = static_cast<std::byte*>(portal_) + slot * sizeof(Descriptor) % portal_bytes;
    Submitted submitted = Submitted::accepted;
    switch (transport_) {
        case Transport::movdir64b:
            store_direct(place, descriptor);
            break;
        case Transport::model_portal:
            if (instructions().movdir64b && sees_direct_stores)
                store_direct(place, descriptor);
            else
                store_in_words(place, descriptor);
            break;
        case Transport::enqcmd:
            if (!enqueue_command(place, descriptor)) submitted = Submitted::busy;
            break;
        default:
            submitted = write_to_device(descriptor);
    }
    if (submitted != Submitted::accepted) give_credit();
    return submitted;
}

Submitted WorkQueue::write_to_device(const Descriptor& descriptor) noexcept {
    if (::write(fd_, &descriptor, sizeof descriptor) == sizeof descriptor) return Submitted::accepted;
    return errno == EAGAIN || errno == EINTR ? Submitted::busy : Submitted::lost;
}

bool WorkQueue::count_error() noexcept {
    return errors_in_a_row_.fetch_add(1, std::memory_order_relaxed) + 1 >= errors_max && retire();
}

}  // namespace pnode::compress::iaa
