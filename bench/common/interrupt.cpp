#include "bench/common/interrupt.h"

#include <signal.h>

#include <atomic>
#include <cstdio>
#include <string>

namespace pnode::bench {
namespace {

// Relaxed is enough: the flag carries no data, and a late look costs one more iteration.
std::atomic<int> arrived{0};
static_assert(std::atomic<int>::is_always_lock_free, "it is stored to by a signal handler");

void remember(int signal_number) {
    arrived.store(signal_number, std::memory_order_relaxed);
}

}  // namespace

Interrupted::Interrupted(int number)
    : std::runtime_error("interrupted by signal " + std::to_string(number)), signal_number(number) {}

void catch_interrupts() {
    struct sigaction action = {};
    action.sa_handler = remember;
    sigemptyset(&action.sa_mask);
    for (int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
}

int interrupted() noexcept {
    return arrived.load(std::memory_order_relaxed);
}

void throw_if_interrupted() {
    if (int number = interrupted()) throw Interrupted(number);
}

int run_driver(const char* name, const std::function<void()>& body) {
    catch_interrupts();
    try {
        body();
        return 0;
    } catch (const Interrupted& interrupt) {
        fprintf(stderr, "%s: %s\n", name, interrupt.what());
        return 128 + interrupt.signal_number;
    } catch (const std::exception& error) {
        fprintf(stderr, "%s: %s\n", name, error.what());
        return 1;
    }
}

}  // namespace pnode::bench
