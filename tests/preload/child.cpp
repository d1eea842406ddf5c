#include "child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace preload_test {
namespace {

void redirect(const std::filesystem::path& path, int onto) {
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, onto) < 0) _exit(126);
}

}  // namespace

Directory::Directory() {
    std::string name = std::filesystem::temp_directory_path() / "pnode-preload-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary directory");
    path_ = name;
}

Directory::~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

pid_t start(const std::vector<std::string>& arguments, const Environment& environment,
            const Directory& directory) {
    const pid_t child = fork();
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    redirect(directory / "out", STDOUT_FILENO);
    redirect(directory / "err", STDERR_FILENO);
    if (chdir(directory.path().c_str()) != 0) _exit(126);
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> pointers;
    for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
    pointers.push_back(nullptr);
    execvp(pointers[0], pointers.data());
    _exit(127);
}

Said run(const std::vector<std::string>& arguments, const Environment& environment,
         const Directory& directory) {
    const pid_t child = start(arguments, environment, directory);
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) status = -1;
    return {read_file(directory / "out"), read_file(directory / "err"), status};
}

std::string read_file(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

long long json_number(const std::string& json, const std::string& name) {
    const std::size_t at = json.find("\"" + name + "\":");
    if (at == std::string::npos) return -1;
    return std::atoll(json.c_str() + at + name.size() + 3);
}

}  // namespace preload_test
