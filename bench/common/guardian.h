// Something on this machine that must be undone however the benchmark ends, a crash and SIGKILL included.
//
// A guardian is a small child process that sleeps until it is told to tear down or its parent is gone, and
// then does it: one path for every ending. It is out of reach of the terminal's signals. Make one before
// there are threads or much memory.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

namespace pnode::bench {

class Guardian {
  public:
    // `what` names the thing in messages. `teardown` runs in the child and answers "" or what went wrong,
    // with the cure. Throws std::system_error when there can be no guardian: then nothing may be set up.
    Guardian(std::string what, std::function<std::string()> teardown);
    // Tears down and waits for it; complains on stderr when it failed.
    ~Guardian();
    Guardian(const Guardian&) = delete;
    Guardian& operator=(const Guardian&) = delete;

    // A line of text for the child, at most 255 bytes: what it must undo is often known only after the setup
    // began. The last one told is what `teardown` finds in Guardian::told().
    void tell(const std::string& fact);
    // In the child: what was told last, "" for nothing.
    static const std::string& told();

  private:
    std::string what_;
    int pipe_ = -1;
    pid_t child_ = -1;
};

}  // namespace pnode::bench
