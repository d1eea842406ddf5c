#include "bench/common/temporary_directory.h"

#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

namespace pnode::bench {
namespace {

std::string remove_directory(const std::string& path) {
    if (path.empty()) return "";
    std::error_code problem;
    std::filesystem::remove_all(path, problem);
    return problem ? "cannot remove " + path + ": " + problem.message() : "";
}

}  // namespace

TemporaryDirectory::TemporaryDirectory(const std::string& name)
    : guardian_("temporary directory", [] { return remove_directory(Guardian::told()); }) {
    std::string path = (std::filesystem::temp_directory_path() / (name + "-XXXXXX")).string();
    if (!mkdtemp(path.data())) throw std::system_error(errno, std::generic_category(), "mkdtemp " + path);
    guardian_.tell(path);
    path_ = path;
}

}  // namespace pnode::bench
