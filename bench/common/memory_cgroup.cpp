#include "bench/common/memory_cgroup.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <stdexcept>

namespace pnode::bench {
namespace {

struct Mount {
    std::string path;  // "" when there is no memory controller
    bool version_2 = false;
};

bool has_word(const std::string& text, const std::string& word, char separator) {
    std::istringstream words(text);
    for (std::string each; std::getline(words, each, separator);)
        if (each == word) return true;
    return false;
}

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

Mount find_mount() {
    std::ifstream mounts("/proc/self/mounts");
    for (std::string line; std::getline(mounts, line);) {
        std::istringstream fields(line);
        std::string device, path, type, options;
        fields >> device >> path >> type >> options;
        if (type == "cgroup" && has_word(options, "memory", ',')) return {path, false};
        if (type == "cgroup2" && has_word(first_line(path + "/cgroup.controllers"), "memory", ' '))
            return {path, true};
    }
    return {};
}

bool write_text(const std::string& path, const std::string& text) {
    std::ofstream file(path);
    file << text << std::flush;
    return file.good();
}

void must_write(const std::string& path, const std::string& text) {
    if (!write_text(path, text))
        throw std::runtime_error("cannot write " + text + " to " + path + ": " + strerror(errno));
}

std::uint64_t read_number(const std::string& path) {
    std::ifstream file(path);
    std::uint64_t number = 0;
    file >> number;
    return number;
}

std::uint64_t statistic(const std::string& path, const std::string& wanted) {
    std::ifstream file(path);
    std::string name;
    std::uint64_t value = 0;
    while (file >> name >> value)
        if (name == wanted) return value;
    return 0;
}

// Processes that outlived the benchmark go back to the root group: a group can only be removed empty.
std::string remove_group(const std::string& path, const std::string& root) {
    if (path.empty()) return "";
    for (int attempt = 0; attempt < 100; ++attempt) {
        if (rmdir(path.c_str()) == 0 || errno == ENOENT) return "";
        std::ifstream members(path + "/cgroup.procs");
        for (std::string process; members >> process;) write_text(root + "/cgroup.procs", process);
        usleep(20'000);
    }
    return std::string("rmdir ") + path + ": " + strerror(errno) +
           "; run it by hand when its processes are gone";
}

}  // namespace

std::string MemoryCgroup::why_unavailable() {
    if (geteuid() != 0) return "a memory control group needs root";
    if (find_mount().path.empty()) return "no control group file system with a memory controller is mounted";
    return "";
}

MemoryCgroup::MemoryCgroup(const std::string& name)
    : guardian_("memory control group " + name,
                [] { return remove_group(Guardian::told(), find_mount().path); }) {
    if (std::string reason = why_unavailable(); !reason.empty()) throw std::runtime_error(reason);
    const Mount mount = find_mount();
    version_2_ = mount.version_2;
    // Version 2 gives children a controller only when their parent passes it on; it may do so already.
    if (version_2_) must_write(mount.path + "/cgroup.subtree_control", "+memory");
    const std::string path = mount.path + "/" + name + "-" + std::to_string(getpid());
    guardian_.tell(path);
    if (mkdir(path.c_str(), 0755) != 0) throw std::runtime_error("mkdir " + path + ": " + strerror(errno));
    path_ = path;
}

std::string MemoryCgroup::limit_file() const {
    return path_ + (version_2_ ? "/memory.max" : "/memory.limit_in_bytes");
}

void MemoryCgroup::lift_limit() {
    helper_ = {};
    must_write(limit_file(), version_2_ ? "max" : "-1");
}

void MemoryCgroup::set_limit(std::uint64_t bytes) {
    must_write(limit_file(), std::to_string(bytes));
    limit_bytes_ = bytes;
    // 1: no killing (Documentation/admin-guide/cgroup-v1/memory.rst, 10). A kernel without it kills.
    if (version_2_ || helper_.joinable() || !write_text(path_ + "/memory.oom_control", "1")) return;
    helper_ = std::jthread([this](const std::stop_token& stop) { help_on(stop); });
}

// Who waits goes on when the limit grows: for a moment, by less than a page for each that the group may have.
void MemoryCgroup::help_on(const std::stop_token& stop) {
    constexpr std::uint64_t more_bytes = 256 << 10;
    while (!stop.stop_requested()) {
        usleep(1000);
        if (statistic(path_ + "/memory.oom_control", "under_oom") == 0) continue;
        ++helped_on_;
        write_text(limit_file(), std::to_string(limit_bytes_ + more_bytes));
        usleep(1000);
        write_text(limit_file(), std::to_string(limit_bytes_));
    }
}

void MemoryCgroup::add(pid_t process) {
    must_write(path_ + "/cgroup.procs", std::to_string(process));
}

MemoryCgroup::Usage MemoryCgroup::usage() const {
    const std::string statistics = path_ + "/memory.stat";
    if (version_2_) return {read_number(path_ + "/memory.current"), statistic(statistics, "anon")};
    return {read_number(path_ + "/memory.usage_in_bytes"), statistic(statistics, "rss")};
}

const char* MemoryCgroup::version() const {
    return version_2_ ? "version 2" : "version 1";
}

}  // namespace pnode::bench
