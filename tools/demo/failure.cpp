#include "tools/demo/failure.h"

#include <signal.h>

#include <atomic>
#include <initializer_list>

namespace pnode::demo {
namespace {

// Written by the handler, read by every thread that waits; nothing else hangs on it, so relaxed order
// suffices.
std::atomic<int> received_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "written by a signal handler");

void remember(int signal) {
    received_signal.store(signal, std::memory_order_relaxed);
}

}  // namespace

void catch_signals() {
    struct sigaction action = {};
    action.sa_handler = remember;
    action.sa_flags = static_cast<int>(SA_RESETHAND);  // no SA_RESTART: poll() is to return
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

void throw_if_interrupted() {
    if (const int signal = received_signal.load(std::memory_order_relaxed)) throw Interrupted{signal};
}

}  // namespace pnode::demo
