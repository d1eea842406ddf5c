#include "preload/shield/call_table.h"

#include <sys/syscall.h>

#include <array>

namespace pnode::preload {
namespace {

constexpr unsigned arguments_max = 4;
constexpr long calls_end = 512;

struct Call {
    std::int16_t number = -1;
    Argument arguments[arguments_max] = {};
    std::uint8_t count = 0;
};

consteval Argument bytes(std::uint8_t index, std::uint16_t amount) {
    return {index, Shape::bytes, amount, 0};
}
consteval Argument sized(std::uint8_t index, std::uint16_t by) {
    return {index, Shape::sized, by, 0};
}
consteval Argument behind(std::uint8_t index, std::uint16_t by) {
    return {index, Shape::sized_behind, by, 0};
}
consteval Argument text(std::uint8_t index) {
    return {index, Shape::text, 0, 0};
}
consteval Argument bits(std::uint8_t index) {
    return {index, Shape::bits, 0, 0};
}
consteval Argument array(std::uint8_t index, std::uint8_t count_in, std::uint16_t element_bytes) {
    return {index, Shape::array, element_bytes, count_in};
}
consteval Argument shaped(std::uint8_t index, Shape shape, std::uint16_t amount = 0, std::uint8_t other = 0) {
    return {index, shape, amount, other};
}

template <class... Arguments>
consteval Call call(long number, Arguments... arguments) {
    return Call{static_cast<std::int16_t>(number), {arguments...}, sizeof...(arguments)};
}

constexpr std::uint16_t timespec_bytes = 16;
constexpr std::uint16_t itimer_bytes = 32;
constexpr std::uint16_t stat_bytes = 144;
constexpr std::uint16_t statfs_bytes = 120;
constexpr std::uint16_t statx_bytes = 256;
constexpr std::uint16_t usage_bytes = 144;
constexpr std::uint16_t limit_bytes = 16;
constexpr std::uint16_t signal_bytes = 128;  // siginfo_t
constexpr std::uint16_t set_bytes = 8;       // the kernel's sigset_t
constexpr std::uint16_t event_bytes = 12;    // epoll_event
constexpr std::uint16_t int_bytes = 4;

constexpr Call calls[] = {
    // ---- bytes in and out ----
    call(SYS_read, sized(1, 2)),
    call(SYS_write, sized(1, 2)),
    call(SYS_pread64, sized(1, 2)),
    call(SYS_pwrite64, sized(1, 2)),
    call(SYS_readv, shaped(1, Shape::vector, 2)),
    call(SYS_writev, shaped(1, Shape::vector, 2)),
    call(SYS_preadv, shaped(1, Shape::vector, 2)),
    call(SYS_pwritev, shaped(1, Shape::vector, 2)),
    call(SYS_preadv2, shaped(1, Shape::vector, 2)),
    call(SYS_pwritev2, shaped(1, Shape::vector, 2)),
    call(SYS_vmsplice, shaped(1, Shape::vector, 2)),
    call(SYS_process_vm_readv, shaped(1, Shape::vector, 2), shaped(3, Shape::remote_vector, 4)),
    call(SYS_process_vm_writev, shaped(1, Shape::vector, 2), shaped(3, Shape::remote_vector, 4)),
    call(SYS_sendfile, bytes(2, 8)),
    call(SYS_splice, bytes(1, 8), bytes(3, 8)),
    call(SYS_copy_file_range, bytes(1, 8), bytes(3, 8)),
    call(SYS_getrandom, sized(0, 1)),
    call(SYS_io_submit, shaped(2, Shape::blocks, 0, 1)),
    call(SYS_io_setup, bytes(1, 8)),
    call(SYS_io_getevents, array(3, 2, 32), bytes(4, timespec_bytes)),
    call(SYS_io_cancel, bytes(1, 64), bytes(2, 32)),
    call(SYS_io_pgetevents, array(3, 2, 32), bytes(4, timespec_bytes), shaped(5, Shape::packed_set)),
    // ---- sockets ----
    call(SYS_connect, sized(1, 2)),
    call(SYS_bind, sized(1, 2)),
    call(SYS_accept, behind(1, 2), bytes(2, int_bytes)),
    call(SYS_accept4, behind(1, 2), bytes(2, int_bytes)),
    call(SYS_sendto, sized(1, 2), sized(4, 5)),
    call(SYS_recvfrom, sized(1, 2), behind(4, 5), bytes(5, int_bytes)),
    call(SYS_sendmsg, shaped(1, Shape::message)),
    call(SYS_recvmsg, shaped(1, Shape::message)),
    call(SYS_sendmmsg, shaped(1, Shape::messages, 2)),
    call(SYS_recvmmsg, shaped(1, Shape::messages, 2), bytes(4, timespec_bytes)),
    call(SYS_getsockname, behind(1, 2), bytes(2, int_bytes)),
    call(SYS_getpeername, behind(1, 2), bytes(2, int_bytes)),
    call(SYS_socketpair, bytes(3, 8)),
    call(SYS_setsockopt, sized(3, 4)),
    call(SYS_getsockopt, behind(3, 4), bytes(4, int_bytes)),
    // ---- waiting for descriptors ----
    call(SYS_poll, array(0, 1, 8)),
    call(SYS_ppoll, array(0, 1, 8), bytes(2, timespec_bytes), shaped(3, Shape::set)),
    call(SYS_select, bits(1), bits(2), bits(3), bytes(4, timespec_bytes)),
    call(SYS_epoll_wait, array(1, 2, event_bytes)),
    call(SYS_epoll_pwait, array(1, 2, event_bytes), shaped(4, Shape::set)),
    call(SYS_epoll_pwait2, array(1, 2, event_bytes), bytes(3, timespec_bytes), shaped(4, Shape::set)),
    call(SYS_epoll_ctl, bytes(3, event_bytes)),
    call(SYS_pipe, bytes(0, 8)),
    call(SYS_pipe2, bytes(0, 8)),
    // ---- files by name ----
    call(SYS_open, text(0)),
    call(SYS_openat, text(1)),
    call(SYS_openat2, text(1), sized(2, 3)),
    call(SYS_creat, text(0)),
    call(SYS_stat, text(0), bytes(1, stat_bytes)),
    call(SYS_lstat, text(0), bytes(1, stat_bytes)),
    call(SYS_fstat, bytes(1, stat_bytes)),
    call(SYS_newfstatat, text(1), bytes(2, stat_bytes)),
    call(SYS_statx, text(1), bytes(4, statx_bytes)),
    call(SYS_statfs, text(0), bytes(1, statfs_bytes)),
    call(SYS_fstatfs, bytes(1, statfs_bytes)),
    call(SYS_access, text(0)),
    call(SYS_faccessat, text(1)),
    call(SYS_faccessat2, text(1)),
    call(SYS_chdir, text(0)),
    call(SYS_chroot, text(0)),
    call(SYS_mkdir, text(0)),
    call(SYS_mkdirat, text(1)),
    call(SYS_rmdir, text(0)),
    call(SYS_unlink, text(0)),
    call(SYS_unlinkat, text(1)),
    call(SYS_rename, text(0), text(1)),
    call(SYS_renameat, text(1), text(3)),
    call(SYS_renameat2, text(1), text(3)),
    call(SYS_link, text(0), text(1)),
    call(SYS_linkat, text(1), text(3)),
    call(SYS_symlink, text(0), text(1)),
    call(SYS_symlinkat, text(0), text(2)),
    call(SYS_readlink, text(0), sized(1, 2)),
    call(SYS_readlinkat, text(1), sized(2, 3)),
    call(SYS_chmod, text(0)),
    call(SYS_fchmodat, text(1)),
    call(SYS_chown, text(0)),
    call(SYS_lchown, text(0)),
    call(SYS_fchownat, text(1)),
    call(SYS_mknod, text(0)),
    call(SYS_mknodat, text(1)),
    call(SYS_truncate, text(0)),
    call(SYS_utime, text(0), bytes(1, 16)),
    call(SYS_utimes, text(0), bytes(1, 32)),
    call(SYS_futimesat, text(1), bytes(2, 32)),
    call(SYS_utimensat, text(1), bytes(2, 32)),
    call(SYS_getcwd, sized(0, 1)),
    call(SYS_getdents, sized(1, 2)),
    call(SYS_getdents64, sized(1, 2)),
    call(SYS_memfd_create, text(0)),
    call(SYS_inotify_add_watch, text(1)),
    call(SYS_name_to_handle_at, text(1), bytes(2, 136), bytes(3, int_bytes)),
    call(SYS_open_by_handle_at, bytes(1, 136)),
    call(SYS_setxattr, text(0), text(1), sized(2, 3)),
    call(SYS_lsetxattr, text(0), text(1), sized(2, 3)),
    call(SYS_fsetxattr, text(1), sized(2, 3)),
    call(SYS_getxattr, text(0), text(1), sized(2, 3)),
    call(SYS_lgetxattr, text(0), text(1), sized(2, 3)),
    call(SYS_fgetxattr, text(1), sized(2, 3)),
    call(SYS_listxattr, text(0), sized(1, 2)),
    call(SYS_llistxattr, text(0), sized(1, 2)),
    call(SYS_flistxattr, sized(1, 2)),
    call(SYS_removexattr, text(0), text(1)),
    call(SYS_lremovexattr, text(0), text(1)),
    call(SYS_fremovexattr, text(1)),
    call(SYS_execve, text(0), shaped(1, Shape::texts), shaped(2, Shape::texts)),
    call(SYS_execveat, text(1), shaped(2, Shape::texts), shaped(3, Shape::texts)),
    call(SYS_mount, text(0), text(1), text(2), text(4)),
    call(SYS_umount2, text(0)),
    // ---- threads and waiting ----
    call(SYS_futex, bytes(0, int_bytes), bytes(3, timespec_bytes), bytes(4, int_bytes)),
    call(SYS_futex_waitv, shaped(0, Shape::waiters, 1), bytes(3, timespec_bytes)),
    call(SYS_nanosleep, bytes(0, timespec_bytes), bytes(1, timespec_bytes)),
    call(SYS_clock_nanosleep, bytes(2, timespec_bytes), bytes(3, timespec_bytes)),
    call(SYS_wait4, bytes(1, int_bytes), bytes(3, usage_bytes)),
    call(SYS_waitid, bytes(2, signal_bytes), bytes(4, usage_bytes)),
    call(SYS_get_robust_list, bytes(1, 8), bytes(2, 8)),
    call(SYS_sched_setaffinity, sized(2, 1)),
    call(SYS_sched_getaffinity, sized(2, 1)),
    call(SYS_sched_setparam, bytes(1, int_bytes)),
    call(SYS_sched_getparam, bytes(1, int_bytes)),
    call(SYS_sched_setscheduler, bytes(2, int_bytes)),
    call(SYS_sched_rr_get_interval, bytes(1, timespec_bytes)),
    call(SYS_sched_setattr, bytes(1, 56)),
    call(SYS_sched_getattr, sized(1, 2)),
    call(SYS_getcpu, bytes(0, 4), bytes(1, 4)),
    // ---- signals ----
    call(SYS_rt_sigpending, bytes(0, set_bytes)),
    call(SYS_rt_sigtimedwait, bytes(0, set_bytes), bytes(1, signal_bytes), bytes(2, timespec_bytes)),
    call(SYS_rt_sigqueueinfo, bytes(2, signal_bytes)),
    call(SYS_rt_tgsigqueueinfo, bytes(3, signal_bytes)),
    call(SYS_rt_sigsuspend, shaped(0, Shape::set)),
    call(SYS_signalfd, bytes(1, set_bytes)),
    call(SYS_signalfd4, bytes(1, set_bytes)),
    call(SYS_pselect6, bits(1), bits(2), bits(3), bytes(4, timespec_bytes)),  // its sixth: see held_call.cpp
    // ---- time ----
    call(SYS_time, bytes(0, 8)),
    call(SYS_times, bytes(0, 32)),
    call(SYS_gettimeofday, bytes(0, 16), bytes(1, 8)),
    call(SYS_settimeofday, bytes(0, 16), bytes(1, 8)),
    call(SYS_clock_gettime, bytes(1, timespec_bytes)),
    call(SYS_clock_settime, bytes(1, timespec_bytes)),
    call(SYS_clock_getres, bytes(1, timespec_bytes)),
    call(SYS_getitimer, bytes(1, itimer_bytes)),
    call(SYS_setitimer, bytes(1, itimer_bytes), bytes(2, itimer_bytes)),
    call(SYS_timer_create, bytes(1, 64), bytes(2, int_bytes)),
    call(SYS_timer_settime, bytes(2, itimer_bytes), bytes(3, itimer_bytes)),
    call(SYS_timer_gettime, bytes(1, itimer_bytes)),
    call(SYS_timerfd_settime, bytes(2, itimer_bytes), bytes(3, itimer_bytes)),
    call(SYS_timerfd_gettime, bytes(1, itimer_bytes)),
    call(SYS_adjtimex, bytes(0, 208)),
    call(SYS_clock_adjtime, bytes(1, 208)),
    // ---- System V and POSIX queues ----
    call(SYS_semop, array(1, 2, 6)),
    call(SYS_semtimedop, array(1, 2, 6), bytes(3, timespec_bytes)),
    call(SYS_semctl, bytes(3, 104)),
    call(SYS_shmctl, bytes(2, 112)),
    call(SYS_msgctl, bytes(2, 120)),
    call(SYS_msgsnd, shaped(1, Shape::message_queue, 2)),
    call(SYS_msgrcv, shaped(1, Shape::message_queue, 2)),
    call(SYS_mq_open, text(0), bytes(3, 64)),
    call(SYS_mq_unlink, text(0)),
    call(SYS_mq_timedsend, sized(1, 2), bytes(4, timespec_bytes)),
    call(SYS_mq_timedreceive, sized(1, 2), bytes(3, int_bytes), bytes(4, timespec_bytes)),
    call(SYS_mq_notify, bytes(1, 64)),
    call(SYS_mq_getsetattr, bytes(1, 64), bytes(2, 64)),
    // ---- the process, the system ----
    call(SYS_uname, bytes(0, 390)),
    call(SYS_sysinfo, bytes(0, 112)),
    call(SYS_getrlimit, bytes(1, limit_bytes)),
    call(SYS_setrlimit, bytes(1, limit_bytes)),
    call(SYS_prlimit64, bytes(2, limit_bytes), bytes(3, limit_bytes)),
    call(SYS_getrusage, bytes(1, usage_bytes)),
    call(SYS_getgroups, array(1, 0, 4)),
    call(SYS_setgroups, array(1, 0, 4)),
    call(SYS_getresuid, bytes(0, 4), bytes(1, 4), bytes(2, 4)),
    call(SYS_getresgid, bytes(0, 4), bytes(1, 4), bytes(2, 4)),
    call(SYS_capget, bytes(0, 8), bytes(1, 24)),
    call(SYS_capset, bytes(0, 8), bytes(1, 24)),
    call(SYS_sethostname, sized(0, 1)),
    call(SYS_setdomainname, sized(0, 1)),
    call(SYS_syslog, sized(1, 2)),
    call(SYS_ioctl, shaped(2, Shape::io_control)),
    call(SYS_mincore, shaped(2, Shape::pages_of, 1)),
    call(SYS_seccomp, shaped(2, Shape::filter)),
    call(SYS_prctl, bytes(1, unlisted_bytes), shaped(2, Shape::filter), bytes(2, unlisted_bytes),
         bytes(3, unlisted_bytes)),
    call(SYS_perf_event_open, bytes(0, 128)),
    // What the kernel keeps for later: shield.cpp sees to it.
    call(SYS_rseq),
    call(SYS_set_tid_address),
    call(SYS_set_robust_list),
    // ---- no pointers, and often asked ----
    call(SYS_close),
    call(SYS_lseek),
    call(SYS_getpid),
    call(SYS_gettid),
    call(SYS_sched_yield),
    call(SYS_fsync),
    call(SYS_fdatasync),
    call(SYS_ftruncate),
    call(SYS_fallocate),
    call(SYS_dup),
    call(SYS_dup2),
    call(SYS_dup3),
    call(SYS_socket),
    call(SYS_listen),
    call(SYS_shutdown),
    call(SYS_epoll_create1),
    call(SYS_eventfd2),
    call(SYS_kill),
    call(SYS_tgkill),
    call(SYS_exit_group),
    call(SYS_brk),
    call(SYS_flock),
    call(SYS_umask),
    call(SYS_getppid),
    call(SYS_membarrier),
    call(SYS_close_range),
    call(SYS_pause),
    call(SYS_alarm),
    call(SYS_setsid),
    call(SYS_setpgid),
};

// Index of a call in `calls`, one more; 0: not listed.
consteval std::array<std::uint8_t, calls_end> make_index() {
    static_assert(std::size(calls) < 255);
    std::array<std::uint8_t, calls_end> index{};
    for (unsigned at = 0; at < std::size(calls); ++at)
        index[static_cast<unsigned>(calls[at].number)] = static_cast<std::uint8_t>(at + 1);
    return index;
}
constexpr std::array<std::uint8_t, calls_end> index_of_call = make_index();

}  // namespace

std::span<const Argument> arguments_of(long call, bool* listed) noexcept {
    const std::uint8_t at = call >= 0 && call < calls_end ? index_of_call[static_cast<unsigned>(call)] : 0;
    *listed = at != 0;
    if (at == 0) return {};
    return {calls[at - 1].arguments, calls[at - 1].count};
}

}  // namespace pnode::preload
