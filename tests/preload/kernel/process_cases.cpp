// Programs that are started, processes that are waited for, and what the kernel tells about both.
#include <asm/prctl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>

#include <algorithm>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

// A shell that prints what it was given.
struct CommandLine {
    const char* path;
    char** arguments;
    char** environment;
};

CommandLine print_given(Memory& memory) {
    char* const argument = reinterpret_cast<char*>(memory.data(4));
    argument[std::min<std::size_t>(memory.data_bytes(), 60000) - 1] = '\0';
    const char* const path = memory.text("/bin/sh");
    char** const arguments = memory.put_all<char*, 6>({memory.text("sh"), memory.text("-c"),
                                                       memory.text("printf '%s,%s' \"$1\" \"$PNODE_GIVEN\""),
                                                       memory.text("sh"), argument, nullptr});
    char** const environment =
        memory.put_all<char*, 2>({memory.text("PNODE_GIVEN=in the environment"), nullptr});
    memory.forget(arguments);
    memory.forget(environment);
    return {path, arguments, environment};
}

std::string all_of(int fd) {
    std::string text;
    char part[4096];
    for (ssize_t got = 0; (got = read(fd, part, sizeof(part))) > 0;)
        text.append(part, static_cast<std::size_t>(got));
    return text;
}

// The child's side, in which nothing returns.
[[noreturn]] void become(const CommandLine& command, const Ends& ends) {
    if (dup2(ends.in, 1) != 1) _exit(8);
    execve(command.path, command.arguments, command.environment);
    _exit(9);
}

void note_printed(Outcome& outcome, Ends& ends, pid_t child) {
    ends.in.reset();
    outcome.text("printed", all_of(ends.out));
    outcome.note("status", exit_status(child));
}

void execve_case(Memory& memory, Outcome& outcome) {
    const CommandLine command = print_given(memory);
    for (const bool by_vfork : {false, true}) {
        Ends ends = new_pipe();
        memory.away();
        const pid_t child = by_vfork ? vfork() : fork();
        if (child == 0) become(command, ends);
        note_printed(outcome, ends, child);
    }
}

// The child makes everything far once more, as its own.
void execve_in_child_case(Memory& memory, Outcome& outcome) {
    const CommandLine command = print_given(memory);
    Ends ends = new_pipe();
    memory.away();
    const pid_t child = fork();
    if (child == 0) {
        memory.away();
        become(command, ends);
    }
    note_printed(outcome, ends, child);
}

void spawn_case(Memory& memory, Outcome& outcome) {
    const CommandLine command = print_given(memory);
    Ends ends = new_pipe();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends.in, 1);
    auto* const child = memory.put<pid_t>(0);
    memory.away();
    outcome.note("posix_spawn",
                 posix_spawn(child, command.path, &actions, nullptr, command.arguments, command.environment));
    posix_spawn_file_actions_destroy(&actions);
    note_printed(outcome, ends, *child);
    memory.forget(child);
}

pid_t child_that_exits(int status) {
    const pid_t child = fork();
    if (child == 0) _exit(status);
    return child;
}

void wait_case(Memory& memory, Outcome& outcome) {
    int* const status = memory.put(-1);
    auto* const usage = memory.put<rusage>();
    auto* const info = memory.put<siginfo_t>();
    const pid_t first = child_that_exits(7);
    memory.away();
    outcome.check("wait4", wait4(first, status, 0, usage) == first);
    outcome.note("status", *status);
    const pid_t second = child_that_exits(8);
    memory.away();
    outcome.ok("waitid", syscall(SYS_waitid, P_PID, second, info, WEXITED, usage));
    outcome.check("child", info->si_pid == second);
    outcome.note("its status", info->si_status);
    memory.forget(usage);
    memory.forget(info);
}

// The child is gone when the kernel learns that its status cannot be told.
void wait_that_waits_case(Memory& memory, Outcome& outcome) {
    int* const status = memory.put(-1);
    const Ends ends = new_pipe();
    const pid_t child = fork();
    if (child == 0) {
        char byte = 0;
        _exit(read(ends.out, &byte, 1) == 1 ? 5 : 6);
    }
    memory.away();
    const long waited = while_asleep(
        memory, [&] { return waitpid(child, status, 0); },
        [&] { outcome.ok("end", write(ends.in, "x", 1)); });
    outcome.check("waitpid", waited == child);
    outcome.note("status", *status);
}

void limits_case(Memory& memory, Outcome& outcome) {
    auto* const limit = memory.put<rlimit>();
    auto* const former = memory.put<rlimit>();
    memory.away();
    outcome.ok("getrlimit", syscall(SYS_getrlimit, RLIMIT_NOFILE, limit));
    memory.away();
    outcome.ok("setrlimit", syscall(SYS_setrlimit, RLIMIT_NOFILE, limit));
    memory.away();
    outcome.ok("prlimit64", prlimit(0, RLIMIT_NOFILE, limit, former));
    auto* const usage = memory.put<rusage>();
    memory.away();
    outcome.ok("getrusage", getrusage(RUSAGE_SELF, usage));
    outcome.check("usage", usage->ru_maxrss > 0);
    auto* const spent = memory.put<tms>();
    memory.away();
    outcome.check("times", times(spent) != -1);
    memory.forget(usage);
    memory.forget(spent);
}

void system_case(Memory& memory, Outcome& outcome) {
    auto* const names = memory.put<utsname>();
    auto* const info = memory.put<struct sysinfo>();
    auto* const cpu = memory.put(0xffffU);
    auto* const node = memory.put(0xffffU);
    memory.away();
    outcome.ok("uname", uname(names));
    memory.away();
    outcome.ok("sysinfo", sysinfo(info));
    outcome.check("memory", info->totalram > 0);
    memory.away();
    outcome.ok("getcpu", syscall(SYS_getcpu, cpu, node, nullptr));
    outcome.check("processor", *cpu < 0xffff && *node < 0xffff);
    memory.forget(info);
    memory.forget(cpu);
}

void scheduling_case(Memory& memory, Outcome& outcome) {
    auto* const set = memory.put<cpu_set_t>();
    auto* const parameter = memory.put<sched_param>();
    auto* const attributes = memory.room(56, 8);
    auto* const interval = memory.put<timespec>();
    memory.away();
    outcome.ok("sched_getaffinity", syscall(SYS_sched_getaffinity, 0, sizeof(*set), set) > 0 ? 0 : -1);
    memory.away();
    outcome.ok("sched_setaffinity", sched_setaffinity(0, sizeof(*set), set));
    memory.away();
    outcome.ok("sched_getparam", sched_getparam(0, parameter));
    memory.away();
    outcome.ok("sched_setscheduler", sched_setscheduler(0, SCHED_OTHER, parameter));
    memory.away();
    outcome.ok("sched_getattr", syscall(SYS_sched_getattr, 0, attributes, 56, 0));
    memory.away();
    outcome.ok("sched_rr_get_interval", sched_rr_get_interval(0, interval));
    memory.forget(interval);
}

void identity_case(Memory& memory, Outcome& outcome) {
    auto* const ids = memory.put_all<std::uint32_t, 3>({7, 7, 7});
    memory.away();
    outcome.ok("getresuid", syscall(SYS_getresuid, ids, ids + 1, ids + 2));
    memory.away();
    outcome.ok("getresgid", syscall(SYS_getresgid, ids, ids + 1, ids + 2));
    auto* const groups = reinterpret_cast<gid_t*>(memory.room(65536 * sizeof(gid_t), 4));
    memory.away();
    outcome.ok("getgroups", getgroups(65536, groups));
    struct Header {
        std::uint32_t version;
        int pid;
    };
    auto* const header = memory.put<Header>({0x20080522, 0});
    auto* const capabilities = memory.room(24, 4);
    memory.away();
    outcome.ok("capget", syscall(SYS_capget, header, capabilities));
}

void prctl_case(Memory& memory, Outcome& outcome) {
    const char* const name = memory.text("far-name");
    auto* const got = memory.put<std::array<char, 16>>();
    int* const signal = memory.put(77);
    auto* const base = memory.put(0UL);
    char before[16] = {};
    outcome.ok("name before", prctl(PR_GET_NAME, before));
    memory.away();
    outcome.ok("PR_SET_NAME", prctl(PR_SET_NAME, name));
    memory.away();
    outcome.ok("PR_GET_NAME", prctl(PR_GET_NAME, got));
    memory.away();
    outcome.ok("PR_GET_PDEATHSIG", prctl(PR_GET_PDEATHSIG, signal));
    memory.away();
    outcome.ok("ARCH_GET_FS", syscall(SYS_arch_prctl, ARCH_GET_FS, base));
    outcome.check("thread pointer", *base == reinterpret_cast<unsigned long>(__builtin_thread_pointer()));
    outcome.ok("name as it was", prctl(PR_SET_NAME, before));
    memory.forget(base);
}

void seccomp_case(Memory& memory, Outcome& outcome) {
    auto* const allow =
        memory.put_all<sock_filter, 1>({sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}});
    auto* const program = memory.put<sock_fprog>({1, allow});
    memory.forget(program);
    memory.away();
    long result = 0;
    int error = 0;
    std::thread filtered([&] {  // a filter stays as long as its thread
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, program);
        error = errno;
    });
    filtered.join();
    errno = error;
    outcome.note("seccomp", result);
}

void memory_call_case(Memory& memory, Outcome& outcome) {
    auto* const pages = static_cast<std::byte*>(reinterpret_cast<void*>(syscall(
        SYS_mmap, nullptr, 4 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    *pages = std::byte{1};
    auto* const vector = memory.put_all<unsigned char, 4>({9, 9, 9, 9});
    memory.away();
    outcome.ok("mincore", syscall(SYS_mincore, pages, 4 * page_bytes, vector));
    auto* const range = memory.put<iovec>({pages, 4 * page_bytes});
    const Fd self(syscall(434, getpid(), 0));  // pidfd_open
    memory.away();
    outcome.note("process_madvise", syscall(440, static_cast<int>(self), range, 1, MADV_COLD, 0));
    auto* const addresses = memory.put_all<void*, 2>({pages, pages + page_bytes});
    auto* const nodes = memory.put_all<int, 2>({-77, -77});
    memory.away();
    outcome.note("move_pages", syscall(SYS_move_pages, 0, 2, addresses, nullptr, nodes, 0));
    int* const mode = memory.put(77);
    auto* const mask = memory.room(128, 8);
    memory.away();
    outcome.note("get_mempolicy", syscall(SYS_get_mempolicy, mode, mask, 1024, nullptr, 0));
    memory.forget(range);
    memory.forget(addresses);
    syscall(SYS_munmap, pages, 4 * page_bytes);
}

void pidfd_signal_case(Memory& memory, Outcome& outcome) {
    const pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(1);
    }
    const Fd process(syscall(434, child, 0));
    auto* const info = memory.put<siginfo_t>();
    info->si_signo = SIGKILL;
    info->si_code = SI_QUEUE;
    memory.away();
    outcome.ok("pidfd_send_signal", syscall(424, static_cast<int>(process), SIGKILL, info, 0));
    int status = 0;
    outcome.check("waitpid", waitpid(child, &status, 0) == child);
    outcome.note("status", status);
}

constexpr Case cases[] = {
    {"Execve", Access::synchronous, execve_case},
    {"ExecveOfAChildsFarPages", Access::synchronous, execve_in_child_case, false},
    {"PosixSpawn", Access::synchronous, spawn_case, false},
    {"WaitFamily", Access::synchronous, wait_case, false},
    {"WaitThatWaits", Access::asleep, wait_that_waits_case, false},
    {"LimitsAndUsage", Access::synchronous, limits_case, false},
    {"SystemNames", Access::synchronous, system_case, false},
    {"Scheduling", Access::synchronous, scheduling_case, false},
    {"Identity", Access::synchronous, identity_case, false},
    {"Prctl", Access::synchronous, prctl_case, false},
    {"Seccomp", Access::synchronous, seccomp_case, false},
    {"MemoryCalls", Access::synchronous, memory_call_case, false},
    {"PidfdSignal", Access::synchronous, pidfd_signal_case, false},
};

}  // namespace

std::span<const Case> process_cases() {
    return cases;
}

}  // namespace kernel_access
