// Errors are one line each: "pnode: ...".
#pragma once

#include <cstdio>
#include <string>

namespace pnode::tools {

inline void say(const std::string& line) {
    std::fprintf(stderr, "pnode: %s\n", line.c_str());
}

}  // namespace pnode::tools
