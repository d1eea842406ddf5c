#include "bench/churn/floor_subject.h"

#include <sys/uio.h>
#include <ucontext.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <system_error>

#include "runtime/os/handler_exit.h"
#include "runtime/os/pages.h"

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t batch_pages = 64;
constexpr std::size_t threads_max = 64;  // of bench-churn's options

FloorSubject* floor_subject = nullptr;

void must(int error, const char* what) {
    if (error != 0) throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

FloorSubject::FloorSubject(std::size_t bytes, Pages kind, const std::string& codec)
    : pages_(bytes / page_bytes),
      memory_(bytes),
      copies_(bytes / page_bytes, codec),
      moved_(threads_max * batch_pages * page_bytes),
      kind_(kind),
      uffd_(os::open_userfaultfd(UFFD_FEATURE_SIGBUS | (kind == Pages::written_to ? UFFD_FEATURE_MOVE : 0),
                                 false)),
      where_(pages_),
      ring_(pages_),
      near_pages_max_(pages_) {
    must(uffd_.error, "userfaultfd");
    must(os::uffd_register(uffd_.fd, memory(), bytes, UFFDIO_REGISTER_MODE_MISSING), "UFFDIO_REGISTER");
    if (kind == Pages::written_to)
        must(os::uffd_register(uffd_.fd, moved_.data(), threads_max * batch_pages * page_bytes,
                               UFFDIO_REGISTER_MODE_MISSING),
             "UFFDIO_REGISTER");
    floor_subject = this;
    struct sigaction action = {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigfillset(&action.sa_mask);
    must(sigaction(SIGBUS, &action, nullptr) == 0 ? 0 : errno, "sigaction");
}

FloorSubject::~FloorSubject() {
    signal(SIGBUS, SIG_DFL);
    floor_subject = nullptr;
    os::close_userfaultfd(uffd_);
}

void FloorSubject::on_sigbus(int signal, siginfo_t* info, void* context) {
    const int saved_errno = errno;
    const bool served = floor_subject->serve(reinterpret_cast<std::uintptr_t>(info->si_addr));
    errno = saved_errno;
    if (served) os::leave_handler(static_cast<ucontext_t*>(context));
    if (!served) ::signal(signal, SIG_DFL);
}

bool FloorSubject::serve(std::uintptr_t address) noexcept {
    const std::size_t offset = address - reinterpret_cast<std::uintptr_t>(memory());
    if (offset >= pages_ * page_bytes) return false;
    const auto page = static_cast<std::uint32_t>(offset / page_bytes);
    Where found = Where::away;
    // Another thread's on its way, or there again: looked at once more.
    if (!where_[page].compare_exchange_strong(found, Where::busy)) return true;
    alignas(page_bytes) std::byte decoded[page_bytes];
    const std::byte* const contents = copies_.contents(page, decoded);
    std::size_t done = 0;
    int error = contents == nullptr ? EIO : EAGAIN;
    while (error == EAGAIN)
        error = os::uffd_copy(uffd_.fd, memory() + page * page_bytes, contents, page_bytes, &done);
    where_[page].store(Where::near);
    came(page);
    return error == 0;
}

void FloorSubject::came(std::uint32_t page) noexcept {
    bool full = false;
    {
        const std::lock_guard lock(lock_);
        ring_[(first_ + count_++) % ring_.size()] = page;
        full = count_ > near_pages_max_;
    }
    if (full) take_out_oldest();
}

void FloorSubject::take_out_oldest() noexcept {
    std::uint32_t oldest[batch_pages];
    std::size_t count = 0;
    {
        const std::lock_guard lock(lock_);
        for (; count < batch_pages && count_ != 0; --count_, first_ = (first_ + 1) % ring_.size())
            oldest[count++] = ring_[first_];
    }
    std::sort(oldest, oldest + count);
    for (std::size_t i = 0; i < count; ++i) where_[oldest[i]].store(Where::busy);
    if (kind_ == Pages::only_read)
        drop(oldest, count);
    else
        move_out(oldest, count);
    for (std::size_t i = 0; i < count; ++i) where_[oldest[i]].store(Where::away);
}

void FloorSubject::drop(const std::uint32_t* pages, std::size_t count) noexcept {
    iovec ranges[batch_pages];
    for (std::size_t i = 0; i < count; ++i) ranges[i] = {memory() + pages[i] * page_bytes, page_bytes};
    (void)os::drop_ranges(ranges, static_cast<unsigned>(count));  // nobody locked them
}

void FloorSubject::move_out(const std::uint32_t* pages, std::size_t count) noexcept {
    static std::atomic<std::size_t> threads{0};
    static thread_local const std::size_t lane = threads++ % threads_max;  // no more than these at once
    std::byte* moved = moved_.data() + lane * batch_pages * page_bytes;
    for (std::size_t first = 0, end = 0; first < count; first = end) {
        for (end = first + 1; end < count && pages[end] == pages[end - 1] + 1;) ++end;
        const std::size_t bytes = (end - first) * page_bytes;
        for (std::size_t there = 0, done = 0; there < bytes; there += done) {
            const int error = os::uffd_move(
                uffd_.fd, moved + there, memory() + pages[first] * page_bytes + there, bytes - there, &done);
            // A moment's refusal is tried again; at any other the worker ends, and its row says so.
            if (error != EAGAIN && error != EBUSY) must(error, "UFFDIO_MOVE");
        }
        for (; first < end; ++first, moved += page_bytes) keep(pages[first], moved);
    }
    (void)os::drop_pages(moved_.data() + lane * batch_pages * page_bytes, count * page_bytes);
}

// Nobody accesses the memory meanwhile: what it holds is what will be read from now on.
void FloorSubject::keep_near_pages() noexcept {
    for (std::uint32_t page = 0; page < pages_; ++page)
        if (where_[page].load() == Where::near) keep(page, memory() + page * page_bytes);
}

void FloorSubject::keep(std::uint32_t page, const std::byte* contents) noexcept {
    copies_.keep(page, std::span<const std::byte, page_bytes>(contents, page_bytes));
}

void FloorSubject::set_limits(const Limits& limits) {
    keep_near_pages();
    near_pages_max_ = std::min(limits.near_bytes / page_bytes, pages_);
    while (count_ > near_pages_max_) take_out_oldest();
}

Subject::Usage FloorSubject::usage() const {
    return {count_ * page_bytes, copies_.bytes()};
}

}  // namespace pnode::bench
