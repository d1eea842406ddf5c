#include "cxl/guarded.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>

#include "cxl/bad_news.h"

namespace pnode::cxl {

thread_local RecoveryPoint* recovery_point __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

struct sigaction previous_action;

// Is it about an access of this thread, which is made again when the handler returns? Else it was sent.
bool is_fault(const siginfo_t& info) {
    return info.si_code > 0 && info.si_code != BUS_MCEERR_AO;
}

// The default: a fault happens again, what was sent is sent again.
void take_default_action(int signal, const siginfo_t& info) {
    ::signal(signal, SIG_DFL);
    if (!is_fault(info)) raise(signal);
}

// With the mask its owner asked for, as the kernel would have called it.
void pass_on(int signal, siginfo_t* info, void* context) {
    sigset_t before;
    sigprocmask(SIG_BLOCK, &previous_action.sa_mask, &before);
    if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
        previous_action.sa_sigaction(signal, info, context);
    } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
        previous_action.sa_handler(signal);
    } else if (previous_action.sa_handler == SIG_DFL || is_fault(*info)) {  // a fault cannot be ignored
        take_default_action(signal, *info);
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
}

// One page for BUS_ADRERR; the kernel tells the size of what memory_failure() took away.
BadRange range_of(const siginfo_t& info) {
    constexpr int page_log2 = 12;
    const bool is_memory_failure = info.si_code == BUS_MCEERR_AR || info.si_code == BUS_MCEERR_AO;
    const int log2 = is_memory_failure ? std::max<int>(info.si_addr_lsb, page_log2) : page_log2;
    const std::size_t bytes = std::size_t{1} << log2;
    return {reinterpret_cast<std::uintptr_t>(info.si_addr) & ~(bytes - 1), bytes};
}

// Blocks nothing (sa_mask is empty, SA_NODEFER), so that jumping out of it leaves the thread's mask as it
// was.
void on_sigbus(int signal, siginfo_t* info, void* context) {
    if (take_bad_memory(*info)) return;
    const int saved_errno = errno;
    pass_on(signal, info, context);
    errno = saved_errno;
}

// What the program is not told must not end its system calls with EINTR either; unless it has a handler that
// is meant to.
int restart_flag(const struct sigaction& programs) noexcept {
    const bool has_handler = (programs.sa_flags & SA_SIGINFO) != 0 ||
                             (programs.sa_handler != SIG_DFL && programs.sa_handler != SIG_IGN);
    return has_handler ? programs.sa_flags & SA_RESTART : SA_RESTART;
}

}  // namespace

bool take_bad_memory(const siginfo_t& info) noexcept {
    if (info.si_code == BUS_MCEERR_AO && post_bad_news(range_of(info))) return true;
    RecoveryPoint* const point = recovery_point;
    if (point == nullptr || !is_fault(info)) return false;
    point->bad = range_of(info);
    siglongjmp(point->jump, 1);
}

int install_guard() noexcept {
    static std::atomic<bool> installed{false};
    if (installed.exchange(true)) return 0;
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, nullptr, &previous_action) == 0) {
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | restart_flag(previous_action);
        if (sigaction(SIGBUS, &action, &previous_action) == 0) return 0;
    }
    installed.store(false);
    return errno;
}

}  // namespace pnode::cxl
