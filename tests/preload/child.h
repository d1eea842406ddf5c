// Runs a command with or without the preload library, and keeps what it said.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace preload_test {

using Environment = std::vector<std::pair<std::string, std::string>>;

struct Said {
    std::string out;
    std::string err;
    int status;  // as waitpid() gives it; -1 when it was not to be started

    bool operator==(const Said&) const = default;
};

// A directory of its own, removed with all in it.
class Directory {
  public:
    Directory();
    ~Directory();
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

// Starts `arguments[0]` (searched in PATH) in `directory`, output to the files DIRECTORY/out and
// DIRECTORY/err. `environment` is added to the caller's. It dies with the caller.
pid_t start(const std::vector<std::string>& arguments, const Environment& environment,
            const Directory& directory);

Said run(const std::vector<std::string>& arguments, const Environment& environment,
         const Directory& directory);

std::string read_file(const std::filesystem::path& path);

// The number behind "NAME": in a JSON text; -1 when there is none.
long long json_number(const std::string& json, const std::string& name);

}  // namespace preload_test
