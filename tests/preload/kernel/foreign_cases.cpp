// Other processes that look at this one: debuggers, and the dump of a process that ended badly.
#include <elf.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <vector>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

// Runs `look` in another process, which must answer 0, while this one waits.
template <class Look>
void from_outside(Outcome& outcome, Look look) {
    const pid_t target = getpid();
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);  // where the kernel asks for it
    const Ends may_begin = new_pipe();
    const pid_t child = fork();
    if (child == 0) {
        char byte = 0;
        if (read(may_begin.out, &byte, 1) != 1) _exit(100);
        _exit(look(target));
    }
    outcome.ok("begin", write(may_begin.in, "x", 1));
    outcome.note("the other process", exit_status(child));
}

void process_vm_case(Memory& memory, Outcome& outcome) {
    std::byte* const there = memory.data(3);
    const std::size_t bytes = memory.data_bytes();
    static std::byte here[65536];
    memory.away();
    from_outside(outcome, [&](pid_t target) {
        const iovec local = {here, bytes};
        const iovec remote = {there, bytes};
        if (process_vm_readv(target, &local, 1, &remote, 1, 0) != static_cast<ssize_t>(bytes)) return 1;
        std::string expected(bytes, '\0');
        fill_with_text(expected.data(), bytes, 3);
        return std::memcmp(here, expected.data(), bytes) == 0 ? 0 : 2;
    });
    memory.away();
    from_outside(outcome, [&](pid_t target) {
        fill_with_text(here, bytes, 9);
        const iovec local = {here, bytes};
        const iovec remote = {there, bytes};
        return process_vm_writev(target, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(bytes) ? 0 : 1;
    });
}

// Within one process both sides are far.
void own_process_vm_case(Memory& memory, Outcome& outcome) {
    std::byte* const from = memory.data(3);
    std::byte* const to = memory.room(memory.data_bytes());
    auto* const local = memory.put<iovec>({to, memory.data_bytes()});
    auto* const remote = memory.put<iovec>({from, memory.data_bytes()});
    memory.away();
    outcome.ok("process_vm_readv", process_vm_readv(getpid(), local, 1, remote, 1, 0));
    memory.away();
    outcome.ok("process_vm_writev", process_vm_writev(getpid(), remote, 1, local, 1, 0));
    memory.forget(local);
    memory.forget(remote);
}

void proc_mem_case(Memory& memory, Outcome& outcome) {
    std::byte* const there = memory.data(3);
    const std::size_t bytes = memory.data_bytes();
    static std::byte here[65536];
    const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(there));
    for (const bool write_it : {false, true}) {
        memory.away();
        from_outside(outcome, [&](pid_t target) {
            const Fd file(open(("/proc/" + std::to_string(target) + "/mem").c_str(), O_RDWR | O_CLOEXEC));
            std::memset(here, 'w', bytes);
            const ssize_t moved = write_it ? pwrite(file, here, bytes, at) : pread(file, here, bytes, at);
            if (moved != static_cast<ssize_t>(bytes)) return 1;
            std::string expected(bytes, '\0');
            fill_with_text(expected.data(), bytes, 3);
            return write_it || std::memcmp(here, expected.data(), bytes) == 0 ? 0 : 2;
        });
    }
}

void ptrace_case(Memory& memory, Outcome& outcome) {
    auto* const words = memory.put_all<long, 3>({11, 22, 33});
    const pid_t thread = gettid();
    memory.away();
    from_outside(outcome, [&](pid_t) {
        // The thread alone is stopped; who serves its pages is not.
        if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0) return 1;
        if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0) return 2;
        int status = 0;
        if (waitpid(thread, &status, __WALL) != thread) return 3;
        errno = 0;
        const bool read_it = ptrace(PTRACE_PEEKDATA, thread, words + 1, nullptr) == 22 && errno == 0;
        const bool wrote_it = ptrace(PTRACE_POKEDATA, thread, words + 2, 44L) == 0;
        ptrace(PTRACE_DETACH, thread, nullptr, nullptr);
        return !read_it ? 4 : !wrote_it ? 5 : 0;
    });
    outcome.note("poked", words[2]);
}

// Whoever cannot see a page is told so: never another byte than the page's.
void honest_debugger_case(Memory& memory, Outcome& outcome) {
    auto* const words = memory.put_all<long, 3>({11, 22, 33});
    const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(words + 1));
    memory.away();
    from_outside(outcome, [&](pid_t target) {
        const Fd file(open(("/proc/" + std::to_string(target) + "/mem").c_str(), O_RDONLY | O_CLOEXEC));
        long word = 0;
        const ssize_t got = pread(file, &word, sizeof(word), at);
        return got == -1 || (got == sizeof(word) && word == 22) ? 0 : 1;
    });
}

// The file has holes, gigabytes of them: only what is written is looked at.
bool holds(const Fd& file, std::string_view text) {
    for (off_t at = 0, end = 0; (at = lseek(file, end, SEEK_DATA)) >= 0;) {
        end = lseek(file, at, SEEK_HOLE);
        std::string part(static_cast<std::size_t>(end - at), '\0');
        if (pread(file, part.data(), part.size(), at) != static_cast<ssize_t>(part.size())) return false;
        if (part.find(text) != std::string::npos) return true;
    }
    return false;
}

// A core file whose segments lie within it, and which holds `text`.
bool is_whole_core(const std::string& path, std::string_view text) {
    const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    Elf64_Ehdr header = {};
    if (pread(file, &header, sizeof(header), 0) != sizeof(header)) return false;
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_type != ET_CORE ||
        header.e_phnum == PN_XNUM)
        return false;
    std::vector<Elf64_Phdr> segments(header.e_phnum);
    const std::size_t bytes = segments.size() * sizeof(Elf64_Phdr);
    if (pread(file, segments.data(), bytes, static_cast<off_t>(header.e_phoff)) !=
        static_cast<ssize_t>(bytes))
        return false;
    for (const Elf64_Phdr& segment : segments) {
        if (segment.p_offset + segment.p_filesz > std::filesystem::file_size(path)) return false;
    }
    return holds(file, text);
}

// A process that dies with far pages leaves a dump soon. What is far is not in it; what is near is.
void core_dump_case(Memory& memory, Outcome& outcome) {
    std::ifstream pattern_file("/proc/sys/kernel/core_pattern");
    std::string pattern;
    std::getline(pattern_file, pattern);
    const std::string folder = scratch_folder() + "/core";
    std::filesystem::create_directories(folder);
    memory.data(3);
    std::byte* const stays = memory.place_pages(page_bytes);
    memory.forget(stays);
    memory.away();
    const std::string text = "near when it died: " + std::to_string(getpid());
    const pid_t child = fork();
    if (child == 0) {
        memory.away();
        std::memcpy(stays, text.data(), text.size());
        const rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
        if (chdir(folder.c_str()) != 0 || setrlimit(RLIMIT_CORE, &unlimited) != 0) _exit(1);
        signal(SIGABRT, SIG_DFL);
        abort();
    }
    int status = 0;
    outcome.check("waitpid", waitpid(child, &status, 0) == child);
    outcome.check("aborted", WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    // Where dumps are piped to a program, or go elsewhere, that it ended is what can be seen.
    if (WCOREDUMP(status) && pattern.find_first_of("|/") == std::string::npos) {
        const auto dump = std::filesystem::directory_iterator(folder);
        outcome.check("dump",
                      dump != std::filesystem::directory_iterator() && is_whole_core(dump->path(), text));
    }
    std::filesystem::remove_all(folder);
}

constexpr Case cases[] = {
    {"ProcessVm", Access::foreign, process_vm_case},
    {"ProcessVmOfItsOwn", Access::synchronous, own_process_vm_case},
    {"ProcMem", Access::debugger, proc_mem_case},
    {"Ptrace", Access::debugger, ptrace_case, false},
    {"ProcMemNeverLies", Access::foreign, honest_debugger_case, false},
    {"CoreDump", Access::foreign, core_dump_case, false},
};

}  // namespace

std::span<const Case> foreign_cases() {
    return cases;
}

}  // namespace kernel_access
