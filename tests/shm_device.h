// A file that stands in for a dax device: made, sized and removed by the test.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace pnode::test {

class ShmDevice {
  public:
    explicit ShmDevice(std::uint64_t bytes)
        : path_("/dev/shm/pnode-test-" + std::to_string(getpid()) + "-" + std::to_string(++made_)) {
        std::ofstream(path_).close();
        EXPECT_EQ(truncate(path_.c_str(), static_cast<off_t>(bytes)), 0);
    }
    ~ShmDevice() { unlink(path_.c_str()); }
    ShmDevice(const ShmDevice&) = delete;
    ShmDevice& operator=(const ShmDevice&) = delete;
    const std::string& path() const { return path_; }
    std::string spec() const { return "dax:" + path_; }

  private:
    static inline int made_ = 0;
    std::string path_;
};

}  // namespace pnode::test
