#include "bench/fault/floor_tier.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "runtime/os/handler_exit.h"

namespace pnode::bench {
namespace {

// Those by signal. Changes only while nothing faults.
std::vector<FloorTier*> by_signal;
struct sigaction before = {};

void must(int error, const char* what) {
    if (error != 0) throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

FloorTier::FloorTier(Served how, const std::string& codec_name, std::size_t pages, std::size_t run_pages)
    : Tier(std::string("floor") + (how == Served::by_handlers ? "-thread" : "") +
               (run_pages > 1 ? "-" + std::to_string(run_pages) : ""),
           codec_name),
      memory_(pages * page_bytes),
      copies_(pages, codec_name),
      pages_(pages),
      run_pages_(run_pages) {
    const bool by_handlers = how == Served::by_handlers;
    uffd_ = os::open_userfaultfd(by_handlers ? 0 : UFFD_FEATURE_SIGBUS, by_handlers);
    must(uffd_.error, "userfaultfd");
    must(os::uffd_register(uffd_.fd, memory(), pages * page_bytes, UFFDIO_REGISTER_MODE_MISSING),
         "UFFDIO_REGISTER");
    by_handlers ? start_handlers() : take_signal();
}

FloorTier::~FloorTier() {
    if (handlers_.empty()) {
        std::erase(by_signal, this);
        if (by_signal.empty()) sigaction(SIGBUS, &before, nullptr);
    }
    for (std::thread& handler : handlers_) {
        pthread_cancel(handler.native_handle());
        handler.join();
    }
    os::close_userfaultfd(uffd_);
}

void FloorTier::take_signal() {
    by_signal.push_back(this);
    if (by_signal.size() != 1) return;
    struct sigaction action = {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigfillset(&action.sa_mask);
    must(sigaction(SIGBUS, &action, &before) == 0 ? 0 : errno, "sigaction");
}

void FloorTier::start_handlers() {
    for (unsigned processor = 0; processor < std::thread::hardware_concurrency(); ++processor) {
        handlers_.emplace_back([this] { handle(); });
        cpu_set_t here;
        CPU_ZERO(&here);
        CPU_SET(processor, &here);
        pthread_setaffinity_np(handlers_.back().native_handle(), sizeof here, &here);  // else it runs free
    }
}

// Until it is cancelled.
void FloorTier::handle() const {
    for (uffd_msg message; read(uffd_.fd, &message, sizeof message) == sizeof message;)
        if (message.event == UFFD_EVENT_PAGEFAULT)
            serve(static_cast<std::uintptr_t>(message.arg.pagefault.address));
}

void FloorTier::on_sigbus(int signal, siginfo_t* info, void* context) {
    const int saved_errno = errno;
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    if (std::none_of(by_signal.begin(), by_signal.end(), [&](auto* tier) { return tier->serve(address); }))
        return before.sa_sigaction(signal, info, context);
    errno = saved_errno;
    os::leave_handler(static_cast<ucontext_t*>(context));
}

// One after the other, as one UFFDIO_COPY takes them.
const std::byte* FloorTier::run_contents(std::size_t page, std::span<std::byte> decoded) const noexcept {
    for (std::size_t at = 0; at < decoded.size(); at += page_bytes) {
        const std::span<std::byte> place = decoded.subspan(at, page_bytes);
        const std::byte* const found = copies_.contents(page + at / page_bytes, place);
        if (found == nullptr) return nullptr;
        if (found != place.data()) memcpy(place.data(), found, page_bytes);
    }
    return decoded.data();
}

// Two threads may fault on one page: the second finds it there. A run ends at a page that is there.
bool FloorTier::serve(std::uintptr_t address) const noexcept {
    const std::size_t offset = address - reinterpret_cast<std::uintptr_t>(memory());
    if (offset >= pages_ * page_bytes) return false;
    const std::size_t page = offset / page_bytes, bytes = std::min(run_pages_, pages_ - page) * page_bytes;
    alignas(page_bytes) std::byte decoded[run_pages_max * page_bytes];
    const std::byte* const source = bytes == page_bytes
                                        ? copies_.contents(page, std::span(decoded).first(page_bytes))
                                        : run_contents(page, std::span(decoded).first(bytes));
    if (source == nullptr) return false;
    std::byte* const place = memory() + page * page_bytes;
    std::size_t done = 0;
    int error = EAGAIN;
    while (error == EAGAIN && done == 0) error = os::uffd_copy(uffd_.fd, place, source, bytes, &done);
    if (error == EEXIST) os::uffd_wake(uffd_.fd, place, page_bytes);
    return error == 0 || error == EEXIST || done != 0;
}

// A page that is absent has its copy already, and would only be brought back by looking.
void FloorTier::demote(std::size_t first_page, std::size_t pages) {
    std::byte* const first = memory() + first_page * page_bytes;
    std::vector<unsigned char> present(pages);
    must(mincore(first, pages * page_bytes, present.data()) == 0 ? 0 : errno, "mincore");
    for (std::size_t page = 0; page < pages; ++page)
        if ((present[page] & 1) != 0)
            copies_.keep(first_page + page,
                         std::span<const std::byte, page_bytes>(first + page * page_bytes, page_bytes));
    must(madvise(first, pages * page_bytes, MADV_DONTNEED) == 0 ? 0 : errno, "madvise");
}

std::vector<std::size_t> FloorTier::far_pages() const {
    std::vector<unsigned char> present(pages_);
    must(mincore(memory(), pages_ * page_bytes, present.data()) == 0 ? 0 : errno, "mincore");
    std::vector<std::size_t> far;
    for (std::size_t page = 0; page < pages_; ++page)
        if ((present[page] & 1) == 0) far.push_back(page);
    return far;
}

}  // namespace pnode::bench
