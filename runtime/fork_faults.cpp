#include "runtime/fork_faults.h"

#include <cerrno>

#include "runtime/heap.h"
#include "runtime/os/descriptors.h"
#include "runtime/os/system_call.h"

namespace pnode {
namespace {

// visit(first page, pages) for each stretch of tracked pages that are ours; its first error.
template <class Visit>
int for_each_watched(Heap& heap, Visit visit) noexcept {
    int error = 0;
    const std::uint64_t chunk_end = heap.page_count / heap.chunk_pages;
    heap.chunks.for_each_tracked_run(chunk_end, [&](std::uint64_t chunk, std::uint64_t chunks) {
        heap.traits.for_each(chunk * heap.chunk_pages, chunks * heap.chunk_pages, PageTraits::handed_out, 0,
                             [&](std::uint64_t first, std::uint64_t pages) {
                                 if (error == 0) error = visit(first, pages);
                             });
    });
    return error;
}

constexpr os::SignalAction default_action;

// A fault that is not ours happens again with the default action, which ends the child.
void on_sigbus(int signal, siginfo_t* info, void*) {
    const int saved_errno = errno;
    const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
    Heap* const heap = info->si_code == BUS_ADRERR ? heap_at(address) : nullptr;
    if (heap != nullptr && (heap->traits[heap->page_at(address)] & PageTraits::handed_out) == 0) {
        LentResolveLane lane(heap->resolve_lanes);
        resolve(*heap, heap->page_at(address), FaultKind::missing, *lane);
        heap->statistics.faults.add();
    } else {
        os::set_kernel_action(signal, &default_action, nullptr);
    }
    errno = saved_errno;
}

}  // namespace

int ForkFaults::begin() noexcept {
    // The inline engine needs no thread: it answers already.
    if (heap_.engine == Engine::in_line) {
        return for_each_watched(heap_, [this](std::uint64_t first, std::uint64_t pages) {
            return os::uffd_register(heap_.uffd.fd, heap_.address_of(first), pages * page_bytes,
                                     heap_.uffd_mode());
        });
    }
    by_signal_ = heap_.uffd;
    by_signal_.fd = -1;
    by_signal_.features = UFFD_FEATURE_SIGBUS;
    if (const int error = os::reopen_userfaultfd(by_signal_)) return error;
    // Not on the program's alternate stack, which may be far: writing its frame is the kernel's access.
    const os::SignalAction ours = os::action_of_ours(on_sigbus, SA_SIGINFO, ~0UL);
    if (const int error = os::error_of(os::set_kernel_action(SIGBUS, &ours, &before_))) return error;
    return for_each_watched(heap_, [this](std::uint64_t first, std::uint64_t pages) {
        return os::uffd_register(by_signal_.fd, heap_.address_of(first), pages * page_bytes,
                                 UFFDIO_REGISTER_MODE_MISSING);
    });
}

int ForkFaults::end() noexcept {
    if (by_signal_.fd < 0) return 0;
    const int error = for_each_watched(heap_, [this](std::uint64_t first, std::uint64_t pages) {
        const int refused = os::uffd_unregister(by_signal_.fd, heap_.address_of(first), pages * page_bytes);
        return refused != 0 ? refused
                            : os::uffd_register(heap_.uffd.fd, heap_.address_of(first), pages * page_bytes,
                                                heap_.uffd_mode());
    });
    os::set_kernel_action(SIGBUS, &before_, nullptr);
    os::close_descriptor(by_signal_.fd);
    return error;
}

}  // namespace pnode
