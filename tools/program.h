// Whether a program can be run with a preloaded library, told before it is run.
//
// Thread rule: everything here is for one thread.
#pragma once

#include <string>

namespace pnode::tools {

// What a shell exits with for the same reasons.
inline constexpr int exit_usage = 2;
inline constexpr int exit_cannot_run = 126;
inline constexpr int exit_not_found = 127;

struct Refusal {
    int exit_code = 0;    // 0: none, the program can be run
    std::string message;  // one line
    explicit operator bool() const { return exit_code != 0; }
};

// Looks `name` up as execvp() would: as it is when it holds a slash, else in PATH.
Refusal find_program(const std::string& name, std::string* path);

// Refuses what the dynamic loader would not load the library into: static, setuid, setgid, file capabilities,
// another architecture, neither ELF nor a script. Of a script, the interpreter is judged. The file may change
// before it is run; then exec says so.
Refusal check_program(const std::string& path);

}  // namespace pnode::tools
