#include "tools/bench.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tools/program.h"
#include "tools/say.h"

namespace pnode::tools {
namespace {

bool is_word(const std::string& text) {
    return !text.empty() && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == std::string::npos;
}

}  // namespace

int bench(const std::vector<std::string>& arguments) {
    std::error_code failure;
    const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe", failure);
    // `pnode bench codec FILE` is `pnode-bench-codec FILE`.
    const bool names_one = !arguments.empty() && is_word(arguments.front());
    const std::string program = names_one ? "pnode-bench-" + arguments.front() : "pnode-bench";
    std::vector<std::string> command = {here.parent_path() / program};
    command.insert(command.end(), arguments.begin() + (names_one ? 1 : 0), arguments.end());
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
