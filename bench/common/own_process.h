// This very program as another process, started plain or behind a wrapper ("pnode run --"), which answers a
// line to a line.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace pnode::bench {

// The `pnode` of the same build.
std::string pnode_beside_this_program() noexcept;

class OwnProcess {
  public:
    // `wrapper` is what goes before this program's name, `arguments` after it. It ends when its standard
    // input does, or with its parent. Throws std::system_error.
    OwnProcess(const std::vector<std::string>& wrapper, const std::vector<std::string>& arguments);
    ~OwnProcess();
    OwnProcess(const OwnProcess&) = delete;
    OwnProcess& operator=(const OwnProcess&) = delete;

    void say(const std::string& line);
    // Waits for it. Throws std::runtime_error if the process ended.
    std::string line();

  private:
    pid_t pid_ = -1;
    int to_ = -1;
    int from_ = -1;
};

}  // namespace pnode::bench
