// The inline engine: UFFD_FEATURE_SIGBUS turns a fault into a signal in the faulting thread, which resolves
// it itself. No handler to wait for, and no privilege (UFFD_USER_MODE_ONLY). System calls on absent pages
// return EFAULT: callers promote or pin their buffers first.
//
// The handler runs on the faulting thread's stack with every signal blocked, touches no application memory,
// and keeps errno.

#include <signal.h>

#include <cerrno>

#include "runtime/heap.h"

namespace pnode {
namespace {

struct sigaction previous_action;

// A SIGBUS that is not ours goes where it would have gone without us.
void pass_on(int signal, siginfo_t* info, void* context) noexcept {
    if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
        previous_action.sa_sigaction(signal, info, context);
    } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
        previous_action.sa_handler(signal);
    } else {
        // The default: when the handler returns, the access is made again and ends the process.
        ::signal(SIGBUS, SIG_DFL);
    }
}

void on_sigbus(int signal, siginfo_t* info, void* context) {
    const int saved_errno = errno;
    const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
    Heap* heap = info->si_code > 0 ? heap_at(address) : nullptr;
    bool served = false;
    if (heap != nullptr && heap->engine == Engine::in_line) {
        const std::uint64_t page = heap->page_at(address);
        // A poisoned page's second fault is the program's to see. The signal does not say whether a page is
        // missing or write-protected.
        const PageState state = heap->word(page).load().state();
        const Inside inside(heap->serving);
        const std::uint64_t started_ns = os::now_ns();
        LentResolveLane lane(heap->resolve_lanes);
        Resolved resolved = Resolved::poisoned;
        if (state != PageState::poisoned) resolved = resolve(*heap, page, FaultKind::unknown, *lane);
        served = resolved != Resolved::poisoned;
        heap->statistics.faults.add();
        if (resolved == Resolved::fresh) heap->statistics.faults_fresh.add();
        if (resolved == Resolved::redundant) heap->statistics.faults_redundant.add();
        heap->statistics.fault_ns.record(os::now_ns() - started_ns);
        make_room(*heap, Evicting::handler);
    }
    if (!served) pass_on(signal, info, context);
    errno = saved_errno;
}

}  // namespace

int install_inline_engine() noexcept {
    static std::atomic<bool> installed{false};
    if (installed.exchange(true)) return 0;
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    // SIGBUS stays open: a blob's memory may be bad, and the guard around its load (cxl/guarded.h) must hear
    // of that inside this handler too.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    ::sigfillset(&action.sa_mask);
    ::sigdelset(&action.sa_mask, SIGBUS);
    return ::sigaction(SIGBUS, &action, &previous_action) == 0 ? 0 : errno;
}

}  // namespace pnode
