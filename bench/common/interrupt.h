// SIGINT, SIGTERM and SIGHUP end a benchmark by unwinding it, so that destructors put the machine back as it
// was.
//
// The handler only sets a flag. Loops ask throw_if_interrupted(); blocking system calls return EINTR (no
// SA_RESTART).
#pragma once

#include <functional>
#include <stdexcept>

namespace pnode::bench {

struct Interrupted : std::runtime_error {
    explicit Interrupted(int signal_number);
    int signal_number;
};

void catch_interrupts();

// 0, or the signal that arrived. Any thread.
int interrupted() noexcept;

void throw_if_interrupted();

// A driver's main(): its exit code; what went wrong is said in one line that begins with its name.
int run_driver(const char* name, const std::function<void()>& body);

}  // namespace pnode::bench
