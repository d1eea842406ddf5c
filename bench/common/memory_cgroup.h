// A memory control group for the length of an object: version 1 or 2, whichever has the memory controller
// mounted.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "bench/common/guardian.h"

namespace pnode::bench {

class MemoryCgroup {
  public:
    // "" when a MemoryCgroup can be made here, else one sentence that says why not.
    static std::string why_unavailable();

    // Without a limit at first. Throws std::runtime_error; nothing is left behind.
    explicit MemoryCgroup(const std::string& name);

    // Everything charged to the group: anonymous pages, page cache, kernel memory. Reclaims down to it at
    // once.
    void set_limit(std::uint64_t bytes);
    void lift_limit();
    // What `process` allocates from now on is charged here; it goes back to the root group when this object
    // ends. It is exempt from the out-of-memory killer where that is allowed: when every page of the group
    // was used lately the kernel gives up reclaiming, though there is swap left, and ends whom it may; a
    // process it may not end tries again, and that finds pages.
    void add(pid_t process);

    struct Usage {
        std::uint64_t charged_bytes = 0;    // what the limit is held against
        std::uint64_t anonymous_bytes = 0;  // of these, resident anonymous pages
    };
    Usage usage() const;
    // "version 1" or "version 2".
    const char* version() const;

  private:
    Guardian guardian_;
    std::string path_;
    bool version_2_ = false;
};

}  // namespace pnode::bench
