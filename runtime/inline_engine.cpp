// The inline engine: UFFD_FEATURE_SIGBUS turns a fault into a signal in the faulting thread, which resolves
// it itself. No handler to wait for, and no privilege (UFFD_USER_MODE_ONLY). System calls on absent pages
// return EFAULT: callers hold (holds.h), promote or pin their buffers first.
//
// The handler runs on the thread's alternate stack if it has one, with every signal blocked but SIGBUS and
// SIGSYS, touches no application memory, and keeps errno.

#include <signal.h>
#include <ucontext.h>

#include <cerrno>

#include "cxl/guarded.h"
#include "runtime/heap.h"
#include "runtime/os/handler_exit.h"
#include "runtime/os/signal_actions.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {
namespace {

// What the processor said of the access. What lies around the stack pointer is about to be written to,
// perhaps by the kernel, which delivers a signal there.
FaultKind kind_of(std::uint64_t address, const void* context) noexcept {
#ifdef __x86_64__
    // As far as a run that begins elsewhere may reach, too.
    constexpr std::uint64_t stack_bytes = 64 * 1024 + ResolveLane::pages_max * page_bytes;
    constexpr greg_t present = 1, write = 2;  // of the page fault's error code
    const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
    if ((registers[REG_ERR] & present) != 0) return FaultKind::write_protected;
    const auto stack = static_cast<std::uint64_t>(registers[REG_RSP]);
    const bool writes =
        (registers[REG_ERR] & write) != 0 || address - (stack - stack_bytes) < 2 * stack_bytes;
    return writes ? FaultKind::missing_to_write : FaultKind::missing_to_read;
#else
    (void)address, (void)context;
    return FaultKind::unknown;
#endif
}

// A fault that was ours when it was raised, before the page was handed out, is none of the program's: the
// access is made again. What was mapped there, or watches it, raises it again if that is what it wants. So
// the first one a thread sees since anything was handed out proves nothing.
bool may_be_from_before() noexcept {
    static thread_local std::uint64_t seen __attribute__((tls_model("initial-exec"))) = 0;
    const std::uint64_t now = hand_outs();
    const bool is_first = seen != now;
    seen = now;
    return is_first;
}

// Who reads far pages in order will want those behind this run.
void ask_for_more(Heap& heap, std::uint64_t page, unsigned run, FaultKind kind) noexcept {
    const PageState state = heap.word(page).load().state();
    if (state != PageState::far && state != PageState::busy) return;
    if (heap.near.limit_pages() < ReadAhead::near_pages_least) return;
    if (heap.read_ahead.ask(page + run, kind, lane_home())) heap.near.wake_evictor();
}

// Was it a page of ours, and is it near now?
bool serve(Heap& heap, std::uint64_t page, FaultKind kind) noexcept {
    // What was mapped over the heap's pages, a file, has its own reasons.
    if ((heap.traits[page] & PageTraits::handed_out) != 0) return may_be_from_before();
    // A poisoned page's second fault is the program's to see.
    if (heap.word(page).load().state() == PageState::poisoned) return false;
    const Serving serving(heap);
    // Handler threads serve the access when it is made again.
    if (heap.engine_change.has_changed(page)) return true;
    if (heap.engine != Engine::in_line) return false;
    const std::uint64_t started_ns = os::now_ns();
    LentResolveLane lane(heap.resolve_lanes);
    const unsigned run = lane->streams.run_at(page, heap.read_ahead.brought_before(page));
    if (run == Streams::run_max) ask_for_more(heap, page, run, kind);
    const Resolved resolved = resolve(heap, page, kind, *lane, run);
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
    // Bad memory (BUS_MCEERR_AR) is no absent page: made near it would be touched, and found bad, for ever.
    Heap* heap = info->si_code == BUS_ADRERR ? heap_at(address) : nullptr;
    if (heap == nullptr && cxl::take_bad_memory(*info)) return;
    const bool served = heap != nullptr && serve(*heap, heap->page_at(address), kind_of(address, context));
    if (!served) os::pass_on(signal, info, context);
    errno = saved_errno;
    if (!served) return;
    os::send_waiting_signals(context);
    os::leave_handler(static_cast<ucontext_t*>(context));
}

}  // namespace

int install_inline_engine() noexcept {
    return os::take_signal(SIGBUS, on_sigbus, ~0UL);
}

}  // namespace pnode
