#include "tools/program.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace pnode::tools {
namespace {

#if defined(__x86_64__)
constexpr Elf64_Half our_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr Elf64_Half our_machine = EM_AARCH64;
#else
#error "name the ELF machine of this architecture"
#endif

constexpr int interpreters_max = 4;  // a script run by a script run by ...: the kernel's own limit
constexpr std::size_t script_head_max =
    256;  // BINPRM_BUF_SIZE: as much of "#! interpreter" as the kernel reads

Refusal cannot_run(std::string message) {
    return {exit_cannot_run, std::move(message)};
}

class File {
  public:
    explicit File(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
    ~File() {
        if (fd_ >= 0) ::close(fd_);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    bool is_open() const { return fd_ >= 0; }

    // False when fewer than `bytes` are there.
    bool read_at(off_t offset, void* out, std::size_t bytes) const {
        return ::pread(fd_, out, bytes, offset) == static_cast<ssize_t>(bytes);
    }

    std::string head(std::size_t bytes_max) const {
        std::string text(bytes_max, '\0');
        const ssize_t got = ::pread(fd_, text.data(), bytes_max, 0);
        text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
        return text;
    }

  private:
    int fd_;
};

bool is_executable_file(const std::string& path) {
    struct stat status;
    return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && ::access(path.c_str(), X_OK) == 0;
}

std::vector<std::string> path_folders() {
    const char* const variable = std::getenv("PATH");
    std::string_view rest = variable != nullptr ? variable : "/usr/local/bin:/usr/bin:/bin";
    std::vector<std::string> folders;
    for (;;) {
        const std::size_t colon = rest.find(':');
        const std::string_view folder = rest.substr(0, colon);
        folders.emplace_back(folder.empty() ? "." : folder);  // POSIX: an empty entry is the current folder
        if (colon == std::string_view::npos) return folders;
        rest.remove_prefix(colon + 1);
    }
}

// With an ELF header at hand, whether the loader we need is asked for. Everything is read at most once and
// bounded by e_phnum.
Refusal check_elf(const std::string& path, const File& file) {
    Elf64_Ehdr header;
    if (!file.read_at(0, &header, sizeof header)) return cannot_run(path + " is cut short: not a program");
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != our_machine) {
        return cannot_run(path + " is for another architecture (ELF machine " +
                          std::to_string(header.e_machine) + "): pnode's library cannot be loaded into it");
    }
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
        return cannot_run(path + " is an object file, not a program");
    for (std::size_t index = 0; index < header.e_phnum; ++index) {
        Elf64_Phdr segment;
        const auto offset = static_cast<off_t>(header.e_phoff + index * sizeof segment);
        if (!file.read_at(offset, &segment, sizeof segment))
            return cannot_run(path + " is cut short: not a program");
        if (segment.p_type == PT_INTERP) return {};
    }
    return cannot_run(path + " is statically linked: no library can be preloaded into it");
}

// What stands behind "#!", up to the first blank.
std::string interpreter_of(const std::string& head) {
    const std::size_t begin = head.find_first_not_of(" \t", 2);
    if (begin == std::string::npos || head[begin] == '\n') return {};
    return head.substr(begin, head.find_first_of(" \t\n", begin) - begin);
}

Refusal check_privilege(const std::string& path, const struct stat& status) {
    if ((status.st_mode & S_ISUID) != 0)
        return cannot_run(path + " is setuid: the loader ignores preloaded libraries there");
    // Without the group's execute bit, setgid once meant mandatory locking, and exec ignores it.
    if ((status.st_mode & S_ISGID) != 0 && (status.st_mode & S_IXGRP) != 0) {
        return cannot_run(path + " is setgid: the loader ignores preloaded libraries there");
    }
    if (::getxattr(path.c_str(), "security.capability", nullptr, 0) > 0) {
        return cannot_run(path + " has file capabilities: the loader ignores preloaded libraries there");
    }
    return {};
}

Refusal check_at_depth(const std::string& path, int depth) {
    struct stat status;
    if (::stat(path.c_str(), &status) != 0) return {exit_not_found, path + ": " + std::strerror(errno)};
    if (!is_executable_file(path)) return cannot_run(path + " is not executable");
    const File file(path);
    // A program may be executable and yet not readable: then nothing can be said about it.
    if (!file.is_open()) return cannot_run(path + " cannot be read: " + std::strerror(errno));
    const std::string head = file.head(script_head_max);
    if (head.starts_with("#!")) {
        const std::string interpreter = interpreter_of(head);
        if (interpreter.empty()) return cannot_run(path + " is a script without an interpreter");
        if (depth == interpreters_max) return cannot_run(path + " is a script run by too many scripts");
        Refusal refusal = check_at_depth(interpreter, depth + 1);
        if (refusal) refusal.message = path + " is a script: its interpreter " + refusal.message;
        return refusal;
    }
    if (!head.starts_with(ELFMAG))
        return cannot_run(path + " is neither an ELF program nor a script with a #! line");
    if (Refusal refusal = check_elf(path, file)) return refusal;
    return check_privilege(path, status);
}

}  // namespace

Refusal find_program(const std::string& name, std::string* path) {
    if (name.empty()) return {exit_not_found, "the program's name is empty"};
    if (name.find('/') != std::string::npos) {
        *path = name;
        return ::access(name.c_str(), F_OK) == 0
                   ? Refusal{}
                   : Refusal{exit_not_found, name + ": " + std::strerror(errno)};
    }
    std::string found;
    for (const std::string& folder : path_folders()) {
        std::string candidate = folder;
        candidate.append("/").append(name);
        if (is_executable_file(candidate)) {
            *path = candidate;
            return {};
        }
        if (found.empty() && ::access(candidate.c_str(), F_OK) == 0) found = candidate;
    }
    if (!found.empty()) return cannot_run(found + " is not executable");
    return {exit_not_found, name + " is in no folder of PATH"};
}

Refusal check_program(const std::string& path) {
    return check_at_depth(path, 0);
}

}  // namespace pnode::tools
