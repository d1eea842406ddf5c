// What the kernel says of memory that nobody was reading: scrubbing found it bad, or another process ran into
// it. A process that asked for it (prctl PR_MCE_KILL, or the administrator by vm.memory_failure_early_kill)
// is told by a SIGBUS (BUS_MCEERR_AO) at whatever moment. It is about no access, so there is nothing to give
// up: it is noted here, and the memory's owner stops using it when he comes by. What lies there already is
// found bad when it is read.
//
// Thread rule: post_bad_news() is the signal handler's, and may interrupt anything. watch() and destruction
// are the region's owner's; next() may be called by any thread.
#pragma once

#include <atomic>
#include <cstddef>

#include "cxl/guarded.h"

namespace pnode::cxl {

struct Mailbox;

class BadNews {
  public:
    BadNews() = default;
    ~BadNews();
    BadNews(const BadNews&) = delete;
    BadNews& operator=(const BadNews&) = delete;

    // News of these bytes come here. When too many ranges are watched already, they go to the program
    // instead.
    void watch(const void* begin, std::size_t bytes) noexcept;
    // Takes one of them; false: there is none, which costs a load.
    bool next(BadRange* bad) noexcept;

  private:
    Mailbox* mailbox_ = nullptr;
};

// False: nobody watches that memory.
bool post_bad_news(const BadRange& bad) noexcept;

}  // namespace pnode::cxl
