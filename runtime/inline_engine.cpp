// The inline engine: UFFD_FEATURE_SIGBUS turns a fault into a signal in the faulting thread, which resolves
// it itself. No handler to wait for, and no privilege (UFFD_USER_MODE_ONLY). System calls on absent pages
// return EFAULT: callers hold (holds.h), promote or pin their buffers first.
//
// The handler runs on the thread's alternate stack if it has one, with every signal blocked but SIGBUS and
// SIGSYS, touches no application memory, and keeps errno.

#include <signal.h>

#include <cerrno>

#include "cxl/guarded.h"
#include "runtime/heap.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {
namespace {

// Was it a page of ours, and is it near now?
bool serve(Heap& heap, std::uint64_t page) noexcept {
    // What was mapped over the heap's pages, a file, has its own reasons.
    if ((heap.traits[page] & PageTraits::handed_out) != 0) return false;
    // A poisoned page's second fault is the program's to see. The signal does not say whether a page is
    // missing or write-protected.
    if (heap.word(page).load().state() == PageState::poisoned) return false;
    const Serving serving(heap);
    const std::uint64_t started_ns = os::now_ns();
    LentResolveLane lane(heap.resolve_lanes);
    const Resolved resolved = resolve(heap, page, FaultKind::unknown, *lane);
    heap.statistics.faults.add();
    if (resolved == Resolved::fresh) heap.statistics.faults_fresh.add();
    if (resolved == Resolved::redundant) heap.statistics.faults_redundant.add();
    heap.statistics.fault_ns.record(os::now_ns() - started_ns);
    make_room(heap, Evicting::handler);
    return resolved != Resolved::poisoned;
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
    const int saved_errno = errno;
    const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
    Heap* heap = info->si_code > 0 ? heap_at(address) : nullptr;
    if (heap == nullptr) cxl::abandon_guarded(*info);
    const bool ours = heap != nullptr && heap->engine == Engine::in_line;
    if (!ours || !serve(*heap, heap->page_at(address))) os::pass_on(signal, info, context);
    errno = saved_errno;
}

}  // namespace

int install_inline_engine() noexcept {
    return os::take_signal(SIGBUS, on_sigbus, ~0UL);
}

}  // namespace pnode
