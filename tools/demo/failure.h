// How a demonstration ends early: a sentence that names the cure, or the user's signal.
#pragma once

#include <stdexcept>
#include <string>

namespace pnode::demo {

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Thrown by throw_if_interrupted(); what ends servers and removes files are destructors, so unwinding is the
// clean-up.
struct Interrupted {
    int signal;
};

// SIGINT, SIGTERM and SIGHUP set a flag from now on; a second one of the same kind ends the process at once.
// SIGPIPE is ignored: a server that is gone is an error of the write, not the end of us.
void catch_signals();

// Called by whatever loops or waits.
void throw_if_interrupted();

}  // namespace pnode::demo
