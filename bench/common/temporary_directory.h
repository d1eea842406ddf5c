// A directory under the system's temporary one, gone with everything in it however the benchmark ends.
#pragma once

#include <string>

#include "bench/common/guardian.h"

namespace pnode::bench {

class TemporaryDirectory {
  public:
    // Throws std::runtime_error.
    explicit TemporaryDirectory(const std::string& name);
    const std::string& path() const { return path_; }

  private:
    Guardian guardian_;
    std::string path_;
};

}  // namespace pnode::bench
