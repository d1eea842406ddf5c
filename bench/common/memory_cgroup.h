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
    // once. When every page of a small group was used lately the kernel gives up reclaiming, though there is
    // swap left, and kills; under version 1 the process waits instead and is helped on at once.
    void set_limit(std::uint64_t bytes);
    // How often that was.
    std::uint64_t helped_on() const { return helped_on_.load(); }
    void lift_limit();
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
