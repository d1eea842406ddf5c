#include "tools/bench.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tools/program.h"
#include "tools/say.h"

namespace pnode::tools {

int bench(const std::vector<std::string>& arguments) {
    std::error_code failure;
    const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe", failure);
    std::vector<std::string> command = {here.parent_path() / "pnode-bench"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    pointers.reserve(command.size() + 1);
    for (std::string& word : command) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    ::execv(pointers[0], pointers.data());
    const int error = errno;
    say(command[0] + ": " + std::strerror(error) + " (the benchmarks are built with -DPNODE_BENCH=ON)");
    return error == ENOENT ? exit_not_found : exit_cannot_run;
}

}  // namespace pnode::tools
