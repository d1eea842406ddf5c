#include "runtime/change_engine.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "runtime/heap.h"

namespace pnode {
namespace {

constexpr std::uint64_t piece_pages = 128;
constexpr long breath_ns = 100'000;  // in which whoever waited at a gate passes it

[[noreturn]] void end_process(int error) noexcept {
    report(
        "a range can be watched neither inline nor by handler threads (errno %d): the process cannot go on",
        error);
    std::abort();
}

// From one descriptor to the other. After an error it is where it was.
int hand_over(int from, int to, void* address, std::uint64_t bytes, std::uint64_t mode) noexcept {
    if (const int error = os::uffd_unregister(from, address, bytes)) return error;
    const int error = os::uffd_register(to, address, bytes, mode);
    if (error == 0) return 0;
    if (const int worse = os::uffd_register(from, address, bytes, mode)) end_process(worse);
    return error;
}

// Nothing of it is far or write-protected afterwards. EIO: a page is lost.
int bring_all_near(Heap& heap, std::uint64_t first, std::uint64_t pages, bool* any_fresh) noexcept {
    LentResolveLane lane(heap.resolve_lanes);
    const std::uint64_t end = first + pages;
    for (std::uint64_t page = first; page < end; ++page) {
        const PageState state = heap.word(page).load().state();
        if (state == PageState::near) make_writable(heap, page);
        *any_fresh |= state == PageState::fresh;
        if (state == PageState::fresh || state == PageState::near) continue;
        const auto run = static_cast<unsigned>(std::min<std::uint64_t>(end - page, ResolveLane::pages_max));
        if (resolve(heap, page, FaultKind::asked, *lane, run) == Resolved::poisoned) return EIO;
        if (heap.word(page).load().state() != PageState::near) return EAGAIN;
    }
    return 0;
}

class GatesShut {
  public:
    explicit GatesShut(Heap& heap) noexcept : heap_(heap) {
        heap_.operations.shut_and_wait();
        heap_.serving.shut_and_wait();
    }
    ~GatesShut() {
        heap_.serving.open();
        heap_.operations.open();
    }
    GatesShut(const GatesShut&) = delete;
    GatesShut& operator=(const GatesShut&) = delete;

  private:
    Heap& heap_;
};

struct Pages {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
};

// The next piece that is watched, from `first` on; none: no pages. With the gates shut.
Pages next_watched(const Heap& heap, std::uint64_t first) noexcept {
    while (first < heap.page_count) {
        const std::uint64_t end = heap.end_of_chunk(heap.chunk_of(first));
        if (heap.chunks.state(heap.chunk_of(first)) != ChunkState::tracked) {
            first = end;
            continue;
        }
        const std::uint64_t run =
            heap.traits.run(first, std::min(piece_pages, end - first), PageTraits::handed_out);
        if ((heap.traits[first] & PageTraits::handed_out) == 0) return {first, run};
        first += run;
    }
    return {};
}

int hand_over_staging(Heap& heap, int from, int to) noexcept {
    return hand_over(from, to, heap.staging_address(), Heap::staging_bytes(), UFFDIO_REGISTER_MODE_MISSING);
}

// By the gates' holder.
int move_piece(Heap& heap, int from, int to, std::uint64_t first, std::uint64_t pages) noexcept {
    bool any_fresh = false;
    if (const int error = bring_all_near(heap, first, pages, &any_fresh)) return error;
    const int error = hand_over(from, to, heap.address_of(first), pages * page_bytes, heap.uffd_mode());
    if (error == 0 && any_fresh) heap.near.charge(adopt_present_pages(heap, first, pages), heap.statistics);
    return error;
}

// With the heap's features, but one that handler threads can read. The device's descriptor stays the heap's,
// so that a process that gave its privileges away has its right still.
int open_full(const os::UffdOpened& in_line, os::UffdOpened* full) noexcept {
    const std::uint64_t features = in_line.features & ~std::uint64_t{UFFD_FEATURE_SIGBUS};
    if (in_line.rung == os::UffdRung::user_mode_only) {
        *full = os::open_userfaultfd(features, true);
        if (full->fd >= 0 && full->features == features) return 0;
        const int error = full->fd < 0 && full->error != 0 ? full->error : EPERM;
        os::close_userfaultfd(*full);
        return error;
    }
    *full = in_line;
    full->fd = -1;
    full->features = features;
    return os::reopen_userfaultfd(*full);
}

void close_all_but_device(os::UffdOpened& opened, const os::UffdOpened& kept) noexcept {
    if (opened.device == kept.device) opened.device = -1;
    os::close_userfaultfd(opened);
}

}  // namespace

bool EngineChange::replace(std::uint32_t from, std::uint32_t to) noexcept {
    if (!stage_.compare_exchange_strong(from, to)) return false;
    os::futex_wake_all(stage_);
    return true;
}

bool EngineChange::ask(Heap& heap, Everybody has_descriptors) noexcept {
    constexpr std::uint64_t patience_ns = 2'000'000'000;
    constexpr std::uint64_t look_ns = 100'000'000;
    if (heap.engine == Engine::thread) return true;
    if (!heap.evictor.is_running()) return false;
    everybody_.store(has_descriptors);
    replace(idle, asked);
    const std::uint64_t end_ns = os::now_ns() + patience_ns;
    for (;;) {
        const std::uint32_t stage = stage_.load();
        if (stage == idle) return heap.engine == Engine::thread;
        heap.near.wake_evictor();
        if (stage != moving && os::now_ns() > end_ns && replace(stage, idle)) return false;
        os::futex_wait(stage_, stage, look_ns);
    }
}

void EngineChange::make_if_asked(Heap& heap) noexcept {
    if (!is_asked_for() || !replace(asked, starting)) return;
    // Keeps forks and activations away.
    const std::lock_guard lock(heap.activation_lock);
    const int error = heap.engine == Engine::in_line ? make(heap) : 0;
    if (error == 0 && heap.config.verbose)
        report("handler threads serve faults from now on in process %d", ::getpid());
    if (!replace(moving, idle)) replace(starting, idle);
}

// Those that are about to have a program of their own are worth a wait.
int EngineChange::wait_for_everybody() const noexcept {
    const Everybody has_descriptors = everybody_.load();
    while (has_descriptors != nullptr && !has_descriptors()) {
        if (stage_.load() != starting) return ECANCELED;
        os::sleep_ns(1'000'000);
    }
    return 0;
}

int EngineChange::descriptor_of(const Heap& heap, std::uint64_t page) const noexcept {
    return page < boundary() ? heap.uffd.fd : former_fd_;
}

// From here on `other` is the former one.
int EngineChange::begin(Heap& heap, os::UffdOpened& other) noexcept {
    if (!replace(starting, moving)) return ECANCELED;
    const GatesShut gates(heap);
    if (const int error = hand_over_staging(heap, heap.uffd.fd, other.fd)) return error;
    std::swap(heap.uffd, other);
    former_fd_ = other.fd;
    boundary_.store(0);
    return 0;
}

int EngineChange::move_pieces(Heap& heap, os::UffdOpened& other) noexcept {
    for (;;) {
        {
            const GatesShut gates(heap);
            const Pages piece = next_watched(heap, boundary());
            if (piece.count == 0) {
                end(heap);
                return 0;
            }
            if (const int error = move_piece(heap, former_fd_, heap.uffd.fd, piece.first, piece.count)) {
                undo(heap, other);
                return error;
            }
            boundary_.store(piece.first + piece.count);
        }
        os::sleep_ns(breath_ns);
        const Inside inside(heap.operations);
        make_room(heap, Evicting::other);
    }
}

// With the gates shut.
void EngineChange::end(Heap& heap) noexcept {
    heap.config.engine = PN_ENGINE_THREAD;
    heap.engine = Engine::thread;
    made_.store(true, std::memory_order_release);
    boundary_.store(nowhere);
    former_fd_ = -1;
}

// With the gates shut to the end: seldom enough.
void EngineChange::undo(Heap& heap, os::UffdOpened& other) noexcept {
    const std::uint64_t end_page = boundary();
    for (Pages piece = next_watched(heap, 0); piece.count != 0 && piece.first < end_page;
         piece = next_watched(heap, piece.first + piece.count)) {
        piece.count = std::min(piece.count, end_page - piece.first);
        if (const int error = move_piece(heap, heap.uffd.fd, former_fd_, piece.first, piece.count))
            end_process(error);
        make_room(heap, Evicting::other);
    }
    if (const int error = hand_over_staging(heap, heap.uffd.fd, former_fd_)) end_process(error);
    std::swap(heap.uffd, other);
    boundary_.store(nowhere);
    former_fd_ = -1;
}

int EngineChange::make(Heap& heap) noexcept {
    // What is lost must go on raising SIGBUS, and an older kernel tells that by its absence alone.
    if (heap.statistics.poisoned.value() != 0) return EIO;
    os::UffdOpened other;
    if (const int error = open_full(heap.uffd, &other)) return error;
    int error = wait_for_everybody();
    if (error == 0) error = heap.fault_threads.start_on(heap, other.fd, heap.uffd.fd);
    if (error == 0) error = begin(heap, other);
    if (error == 0) error = move_pieces(heap, other);
    if (error != 0) heap.fault_threads.stop();
    close_all_but_device(other, heap.uffd);
    return error;
}

bool choose_handler_threads(Heap& heap) noexcept {
    const os::UffdRung rung = heap.uffd.rung;
    const bool has_right = rung == os::UffdRung::device || rung == os::UffdRung::syscall;
    if (!has_right) {
        os::UffdOpened full = os::open_userfaultfd(0, true);
        const bool can = full.fd >= 0;
        os::close_userfaultfd(full);
        if (!can) return false;
        os::close_userfaultfd(heap.uffd);
    } else {
        // A forked child's: it will be opened as its ancestor's was.
        heap.uffd.features &= ~std::uint64_t{UFFD_FEATURE_SIGBUS};
        heap.engine = Engine::thread;
    }
    heap.config.engine = PN_ENGINE_THREAD;
    return true;
}

}  // namespace pnode
