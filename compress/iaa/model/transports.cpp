#include "compress/iaa/model/transports.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <memory>

namespace pnode::compress::iaa::model {
namespace {

// By atomic loads: the next store to a place is ordered after this by a completion that goes through the
// kernel, which a sanitizer cannot follow.
Descriptor read_in_words(Descriptor* place) noexcept {
    std::uint64_t words[sizeof(Descriptor) / sizeof(std::uint64_t)];
    auto* const from = reinterpret_cast<std::uint64_t*>(place);
    for (std::size_t i = 0; i < std::size(words); ++i)
        words[i] = std::atomic_ref(from[i]).load(std::memory_order_relaxed);
    return std::bit_cast<Descriptor>(words);
}

}  // namespace

Portal::Portal(Plan plan) : engine_(::getpid(), std::move(plan)) {}

int Portal::open() noexcept {
    void* const page = ::mmap(nullptr, portal_bytes, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (page == MAP_FAILED) return errno;
    page_ = static_cast<Descriptor*>(page);
    return ::madvise(page, portal_bytes, MADV_DONTFORK) == 0 ? 0 : errno;
}

void Portal::close() noexcept {
    if (page_ != nullptr) ::munmap(page_, portal_bytes);
    page_ = nullptr;
}

// A full place: one store put all 64 bytes there, or completion_addr came last (instructions.h). Acquire
// pairs with that; emptying it is for whoever has the staging slot of the same number, after its completion.
bool Portal::serve_place(Descriptor* place) noexcept {
    std::atomic_ref full(place->completion_addr);
    if (full.load(std::memory_order_acquire) == 0) return false;
    const Descriptor descriptor = read_in_words(place);
    full.store(0, std::memory_order_release);
    gone_ = !engine_.execute(descriptor);
    return true;
}

unsigned Portal::serve_all() noexcept {
    unsigned served = 0;
    for (unsigned place = 0; place < places && !gone_; ++place) served += serve_place(page_ + place) ? 1 : 0;
    return served;
}

void* Portal::main(void* argument) noexcept {
    constexpr unsigned spins = 256, yields = 4096;
    Portal& portal = *static_cast<Portal*>(argument);
    for (unsigned idle = 0;; ++idle) {
        const bool last_look = portal.stop_.load(std::memory_order_acquire);
        if (portal.serve_all() != 0) idle = 0;
        if (last_look) break;
        const timespec nap{0, 50'000};
        if (idle < spins)
            __builtin_ia32_pause();
        else if (idle < yields)
            ::sched_yield();
        else
            ::nanosleep(&nap, nullptr);
    }
    portal.engine_.drain();
    return nullptr;
}

void serve_socket(int fd, pid_t process, Plan plan) {
    const auto engine = std::make_unique<Engine>(process, std::move(plan));
    Descriptor descriptor;
    while (::recv(fd, &descriptor, sizeof descriptor, 0) == sizeof descriptor &&
           engine->execute(descriptor)) {
    }
    engine->drain();
    ::close(fd);
}

}  // namespace pnode::compress::iaa::model
