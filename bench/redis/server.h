// One redis-server on a free loopback port, without persistence; gone with this
// object, and with this process even when that is killed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bench/common/memory_cgroup.h"

namespace pnode::bench {

class RedisServer {
  public:
    // `directory` is made; it is the server's working directory and takes what it says. `wrapper`: what the
    // server's command line is prefixed with; it must exec, so that the process stays ours. `group` (may be
    // null) is joined before the program starts. Returns when the server answers; throws std::runtime_error
    // with its last words when it does not.
    RedisServer(const std::string& program, const std::string& directory,
                const std::vector<std::string>& wrapper, MemoryCgroup* group);
    ~RedisServer();
    RedisServer(const RedisServer&) = delete;
    RedisServer& operator=(const RedisServer&) = delete;

    int port() const { return port_; }

    // Whether it runs, or how it ended, and the last line it said.
    std::string condition();

    struct Memory {
        std::uint64_t rss_bytes = 0;        // everything mapped, a pnode region included
        std::uint64_t anonymous_bytes = 0;  // resident
    };
    Memory memory() const;

    // Since its start, all its threads. The kernel counts processor time in ticks of 10 ms.
    struct Effort {
        std::uint64_t cpu_ns = 0;
        std::uint64_t major_faults = 0;  // pages that came back from swap
    };
    Effort effort() const;

  private:
    void start(std::vector<std::string> command, MemoryCgroup* group);
    void wait_until_it_answers();
    void stop() noexcept;
    std::string last_words() const;

    std::string directory_;
    int port_ = 0;
    pid_t process_ = -1;
};

}  // namespace pnode::bench
