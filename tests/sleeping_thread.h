// Is another thread of this process asleep in the kernel?
#pragma once

#include <sys/types.h>

#include <fstream>
#include <string>

namespace pnode::test {

inline bool sleeps(pid_t thread) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    std::string stat;
    std::getline(file, stat);
    const std::size_t name_end = stat.rfind(')');
    return name_end != std::string::npos && stat.compare(name_end, 3, ") S") == 0;
}

}  // namespace pnode::test
