// A memory control group for the length of an object: version 1 or 2, whichever has the memory controller
// mounted.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "bench/common/guardian.h"

namespace pnode::bench {

class MemoryCgroup {
  public:
    // "" when a MemoryCgroup can be made here, else one sentence that says why not.
    static std::string why_unavailable();

    // Without a limit at first. Throws std::runtime_error; nothing is left behind.
    explicit MemoryCgroup(const std::string& name);

    // Everything charged to the group: anonymous pages, page cache, kernel memory. Reclaims down to it at
    // once. Version 1: a process that the kernel finds no page to reclaim for waits instead of being killed, and is
    // helped on (let_go_on): all pages of a small group are in use at once now and then, which is no reason to end.
    void set_limit(std::uint64_t bytes);
    // How often that was.
    std::uint64_t helped_on() const { return helped_on_.load(); }
    // What `process` allocates from now on is charged here; it goes back to the root group when this object
    // ends.
    void add(pid_t process);

    struct Usage {
        std::uint64_t charged_bytes = 0;    // what the limit is held against
        std::uint64_t anonymous_bytes = 0;  // of these, resident anonymous pages
    };
    Usage usage() const;
    // "version 1" or "version 2".
    const char* version() const;

  private:
    void help_on(const std::stop_token& stop);
    std::string limit_file() const;

    Guardian guardian_;
    std::string path_;
    bool version_2_ = false;
    std::atomic<std::uint64_t> limit_bytes_{0};
    std::atomic<std::uint64_t> helped_on_{0};
    std::jthread helper_;
};

}  // namespace pnode::bench
