// Paths, and what the kernel tells about files.
#include <linux/fs.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

std::string in_scratch(std::string_view name) {
    return scratch_folder() + "/" + std::string(name);
}

// One folder of many files that nobody touches, so that what is told of it stays the same.
const std::string& quiet_folder() {
    static const std::string path = [] {
        std::string folder = in_scratch("quiet");
        mkdir(folder.c_str(), 0755);
        for (int i = 0; i < 300; ++i) std::ofstream(folder + "/file-" + std::to_string(i)) << i;
        return folder;
    }();
    return path;
}

void open_case(Memory& memory, Outcome& outcome) {
    const char* const path = memory.text(in_scratch("opened"));
    memory.away();
    outcome.check("open", Fd(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) >= 0);
    memory.away();
    outcome.note("open again", open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    memory.away();
    outcome.ok("access", access(path, R_OK));
    memory.away();
    outcome.ok("faccessat2", syscall(439, AT_FDCWD, path, R_OK, AT_EACCESS));
    memory.away();
    outcome.ok("chmod", chmod(path, 0640));
    memory.away();
    outcome.ok("chown", chown(path, getuid(), getgid()));
    memory.away();
    outcome.ok("truncate", truncate(path, 12345));
    memory.away();
    outcome.ok("unlink", unlink(path));
    memory.away();
    outcome.note("gone", open(path, O_RDONLY | O_CLOEXEC));
    struct How {
        std::uint64_t flags, mode, resolve;
    };
    const How* const how = memory.put<How>({O_RDONLY | O_CLOEXEC | O_DIRECTORY, 0, 0});
    const char* const folder = memory.text(scratch_folder());
    memory.away();
    outcome.check("openat2", Fd(syscall(437, AT_FDCWD, folder, how, sizeof(How))) >= 0);
}

void two_paths_case(Memory& memory, Outcome& outcome) {
    const char* const from = memory.text(in_scratch("from"));
    const char* const to = memory.text(in_scratch("to"));
    std::ofstream(in_scratch("from")) << "text";
    memory.away();
    outcome.ok("rename", rename(from, to));
    memory.away();
    outcome.ok("renameat2", renameat2(AT_FDCWD, to, AT_FDCWD, from, RENAME_NOREPLACE));
    memory.away();
    outcome.ok("link", link(from, to));
    memory.away();
    outcome.note("rename refused", renameat2(AT_FDCWD, to, AT_FDCWD, from, RENAME_NOREPLACE));
    memory.away();
    outcome.ok("unlink", unlinkat(AT_FDCWD, to, 0));
    memory.away();
    outcome.ok("symlink", symlink(from, to));
    memory.away();
    char link_text[200] = {};
    outcome.ok("readlink", readlink(to, link_text, sizeof(link_text)) > 0 ? 0 : -1);
    outcome.check("link", std::string(link_text) == in_scratch("from"));
    memory.away();
    outcome.ok("unlink", unlink(to));
    memory.away();
    outcome.ok("unlink", unlink(from));
    memory.forget(from);
    memory.forget(to);
}

void folder_case(Memory& memory, Outcome& outcome) {
    const char* const path = memory.text(in_scratch("folder"));
    const char* const root = memory.text("/");
    const std::string before = std::filesystem::current_path();
    memory.away();
    outcome.ok("mkdir", mkdir(path, 0755));
    memory.away();
    outcome.ok("chdir", chdir(path));
    memory.away();
    outcome.ok("chdir to the root", chdir(root));
    memory.away();
    outcome.ok("rmdir", rmdir(path));
    memory.away();
    outcome.ok("mknod", mknod(path, S_IFIFO | 0600, 0));
    memory.away();
    outcome.ok("unlink", unlink(path));
    outcome.ok("chdir back", chdir(before.c_str()));
}

void stat_case(Memory& memory, Outcome& outcome) {
    const char* const path = memory.text(quiet_folder() + "/file-7");
    auto* const told = memory.put<struct stat>();
    auto* const more = memory.put<struct statx>();
    auto* const system = memory.put<struct statfs>();
    const char* const proc = memory.text("/proc");
    memory.away();
    outcome.ok("stat", stat(path, told));
    memory.away();
    outcome.ok("lstat", lstat(path, told));
    memory.away();
    outcome.ok("fstatat", fstatat(AT_FDCWD, path, told, 0));
    memory.away();
    outcome.ok("statx", statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, more));
    const Fd file(open(path, O_RDONLY | O_CLOEXEC));
    memory.away();
    outcome.ok("fstat", fstat(file, told));
    memory.away();
    outcome.ok("statfs", statfs(proc, system));
}

void getdents_case(Memory& memory, Outcome& outcome) {
    const Fd folder(open(quiet_folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    std::byte* const entries = memory.room(memory.data_bytes(), 8);
    for (int i = 0; i < 500; ++i) {
        memory.away();
        if (outcome.note("getdents64", syscall(SYS_getdents64, static_cast<int>(folder), entries,
                                               memory.data_bytes())) <= 0)
            break;
        outcome.text("entries", {reinterpret_cast<const char*>(entries), memory.data_bytes()});
    }
}

void readlink_case(Memory& memory, Outcome& outcome) {
    const char* const path = memory.text("/proc/self/exe");
    auto* const target = reinterpret_cast<char*>(memory.room(memory.data_bytes()));
    memory.away();
    outcome.ok("readlink", readlink(path, target, memory.data_bytes()));
    memory.away();
    outcome.ok("readlinkat", readlinkat(AT_FDCWD, path, target, memory.data_bytes()));
}

void getcwd_case(Memory& memory, Outcome& outcome) {
    auto* const path = reinterpret_cast<char*>(memory.room(memory.data_bytes()));
    memory.away();
    outcome.note("getcwd", syscall(SYS_getcwd, path, memory.data_bytes()));
}

void attributes_case(Memory& memory, Outcome& outcome) {
    const std::string plain_path = in_scratch("attributes");
    std::ofstream(plain_path) << "text";
    const char* const path = memory.text(plain_path);
    const char* const name = memory.text("user.pnode");
    const std::size_t bytes = std::min<std::size_t>(memory.data_bytes(), 1000);
    const std::byte* const value = memory.data(3, bytes);
    std::byte* const back = memory.room(bytes);
    auto* const list = reinterpret_cast<char*>(memory.room(1000));
    memory.away();
    outcome.note("setxattr", setxattr(path, name, value, bytes, 0));
    memory.away();
    outcome.note("getxattr", getxattr(path, name, back, bytes));
    memory.away();
    outcome.note("listxattr", listxattr(path, list, 1000));
    memory.away();
    outcome.note("removexattr", removexattr(path, name));
    memory.away();
    outcome.note("it is gone", getxattr(path, name, back, bytes));
    unlink(plain_path.c_str());
}

void times_case(Memory& memory, Outcome& outcome) {
    const std::string plain_path = in_scratch("times");
    std::ofstream(plain_path) << "text";
    const char* const path = memory.text(plain_path);
    const auto* const times = memory.put_all<timespec, 2>({timespec{1000, 5000}, timespec{2000, 6000}});
    memory.away();
    outcome.ok("utimensat", utimensat(AT_FDCWD, path, times, 0));
    struct stat told = {};
    outcome.ok("stat", stat(plain_path.c_str(), &told));
    outcome.note("seconds", told.st_mtim.tv_sec);
    outcome.note("nanoseconds", told.st_mtim.tv_nsec);
    unlink(plain_path.c_str());
}

void inotify_case(Memory& memory, Outcome& outcome) {
    const Fd watch(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    const char* const path = memory.text(scratch_folder());
    std::byte* const events = memory.room(1000, 8);
    memory.away();
    outcome.ok("inotify_add_watch", inotify_add_watch(watch, path, IN_CREATE | IN_DELETE));
    std::ofstream(in_scratch("watched")) << "text";
    unlink(in_scratch("watched").c_str());
    memory.away();
    outcome.ok("read", read(watch, events, 1000));
}

void handle_case(Memory& memory, Outcome& outcome) {
    const char* const path = memory.text(quiet_folder());
    auto* const handle = reinterpret_cast<file_handle*>(memory.room(sizeof(file_handle) + 128, 8));
    int* const mount = memory.put(0);
    handle->handle_bytes = 128;
    memory.away();
    outcome.note("name_to_handle_at", name_to_handle_at(AT_FDCWD, path, handle, mount, 0));
}

void flags_case(Memory& memory, Outcome& outcome) {
    const Fd file = text_file(10);
    long* const flags = memory.put(0L);
    const char* const name = memory.text("pnode-test");
    memory.away();
    outcome.note("FS_IOC_GETFLAGS", ioctl(file, FS_IOC_GETFLAGS, flags));
    memory.away();
    const Fd anonymous(memfd_create(name, MFD_CLOEXEC));
    outcome.check("memfd_create", anonymous >= 0);
    const std::string link = "/proc/self/fd/" + std::to_string(anonymous);
    outcome.text("its name", std::filesystem::read_symlink(link).string());
}

constexpr Case cases[] = {
    {"PathsOfOneFile", Access::synchronous, open_case, false},
    {"PathsOfTwoFiles", Access::synchronous, two_paths_case, false},
    {"PathsOfFolders", Access::synchronous, folder_case, false},
    {"StatFamily", Access::synchronous, stat_case, false},
    {"Getdents", Access::synchronous, getdents_case},
    {"Readlink", Access::synchronous, readlink_case},
    {"Getcwd", Access::synchronous, getcwd_case},
    {"ExtendedAttributes", Access::synchronous, attributes_case},
    {"FileTimes", Access::synchronous, times_case, false},
    {"Inotify", Access::synchronous, inotify_case, false},
    {"FileHandles", Access::synchronous, handle_case, false},
    {"FileFlagsAndMemfdName", Access::synchronous, flags_case, false},
};

}  // namespace

std::span<const Case> name_cases() {
    return cases;
}

}  // namespace kernel_access
