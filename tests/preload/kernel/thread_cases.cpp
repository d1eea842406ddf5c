// Futexes and what libc builds of them; what the kernel writes when a thread begins and ends.
#include <linux/futex.h>
#include <linux/rseq.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

#include <chrono>
#include <new>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

using Word = std::uint32_t;

long futex(Word* word, int operation, Word value, const timespec* timeout = nullptr, Word* other = nullptr,
           Word third = 0) {
    return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, timeout, other, third);
}

// Some seconds from now, by CLOCK_REALTIME: what never comes is an answer and no hang.
timespec in_seconds(int seconds) {
    timespec time = {};
    clock_gettime(CLOCK_REALTIME, &time);
    time.tv_sec += seconds;
    return time;
}

void futex_case(Memory& memory, Outcome& outcome) {
    auto* const word = memory.put<Word>(41);
    auto* const other = memory.put<Word>(7);
    auto* const timeout = memory.put<timespec>({0, 1000});
    memory.away();
    outcome.note("wait for another value", futex(word, FUTEX_WAIT, 42));
    memory.away();
    outcome.note("wait that times out", futex(word, FUTEX_WAIT, 41, timeout));
    memory.away();
    outcome.note("bitset", syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, 41, timeout, nullptr, 1));
    memory.away();
    outcome.note("shared", syscall(SYS_futex, word, FUTEX_WAIT, 42, timeout, nullptr, 0));
    memory.away();
    outcome.ok("wake", futex(word, FUTEX_WAKE, 1));
    memory.away();
    outcome.ok("requeue", futex(word, FUTEX_CMP_REQUEUE, 1, reinterpret_cast<timespec*>(1), other, 41));
}

void futex_wait_case(Memory& memory, Outcome& outcome) {
    auto* const word = memory.put<Word>(41);
    auto* const timeout = memory.put<timespec>({20, 0});
    memory.away();
    outcome.ok("wait", while_asleep(
                           memory, [&] { return futex(word, FUTEX_WAIT, 41, timeout); },
                           [&] { outcome.note("woken", futex(word, FUTEX_WAKE, 10)); }));
}

// Another word is changed atomically by the kernel.
void futex_wake_op_case(Memory& memory, Outcome& outcome) {
    auto* const word = memory.put<Word>(1);
    auto* const other = memory.put<Word>(7);
    const int operation = FUTEX_OP(FUTEX_OP_SET, 9, FUTEX_OP_CMP_EQ, 7);
    memory.away();
    outcome.ok("wake_op", futex(word, FUTEX_WAKE_OP, 1, reinterpret_cast<timespec*>(1), other,
                                static_cast<Word>(operation)));
}

void futex_pi_case(Memory& memory, Outcome& outcome) {
    auto* const word = memory.put<Word>(0);
    memory.away();
    outcome.ok("lock", futex(word, FUTEX_LOCK_PI, 0));
    memory.away();
    outcome.note("lock again", futex(word, FUTEX_TRYLOCK_PI, 0));
    memory.away();
    outcome.ok("unlock", futex(word, FUTEX_UNLOCK_PI, 0));
}

void futex_waitv_case(Memory& memory, Outcome& outcome) {
    struct Waiter {
        std::uint64_t value, address;
        std::uint32_t flags, reserved;
    };
    auto* const word = memory.put<Word>(41);
    auto* const other = memory.put<Word>(7);
    const auto address = [](Word* at) { return reinterpret_cast<std::uint64_t>(at); };
    auto* const waiters = memory.put_all<Waiter, 2>({Waiter{41, address(word), 2 | FUTEX_PRIVATE_FLAG, 0},
                                                     Waiter{7, address(other), 2 | FUTEX_PRIVATE_FLAG, 0}});
    auto* const timeout = memory.put<timespec>({1, 0});  // long past
    memory.away();
    outcome.note("wait that times out", syscall(449, waiters, 2, 0, timeout, CLOCK_MONOTONIC));
    *other = 8;
    memory.away();
    outcome.note("wait for another value", syscall(449, waiters, 2, 0, timeout, CLOCK_MONOTONIC));
    memory.forget(waiters);
}

enum class Kind { normal, recursive, checking, inheriting, robust };

pthread_mutex_t* new_mutex(Memory& memory, Kind kind) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (kind == Kind::recursive) pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    if (kind == Kind::checking) pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    if (kind == Kind::inheriting) pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    if (kind == Kind::robust) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    auto* const mutex = memory.put<pthread_mutex_t>();
    pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    memory.forget(mutex);
    return mutex;
}

void contended_mutex(Memory& memory, Outcome& outcome, Kind kind) {
    pthread_mutex_t* const mutex = new_mutex(memory, kind);
    memory.away();
    outcome.note("lock", pthread_mutex_lock(mutex));
    memory.away();
    outcome.note("the other's", while_asleep(
                                    memory,
                                    [&] {
                                        const int locked = pthread_mutex_lock(mutex);
                                        return locked != 0 ? locked : pthread_mutex_unlock(mutex);
                                    },
                                    [&] {
                                        memory.nudge();
                                        outcome.note("unlock", pthread_mutex_unlock(mutex));
                                    }));
    memory.away();
    outcome.note("destroy", pthread_mutex_destroy(mutex));
}

void mutex_case(Memory& memory, Outcome& outcome) {
    for (const Kind kind : {Kind::normal, Kind::recursive, Kind::checking, Kind::robust})
        contended_mutex(memory, outcome, kind);
}
void inheriting_mutex_case(Memory& memory, Outcome& outcome) {
    contended_mutex(memory, outcome, Kind::inheriting);
}

// Its owner ends without letting go: the next one is told.
void robust_mutex_case(Memory& memory, Outcome& outcome) {
    pthread_mutex_t* const mutex = new_mutex(memory, Kind::robust);
    const Ends locked = new_pipe();
    const Ends may_end = new_pipe();
    std::thread owner([&] {
        pthread_mutex_lock(mutex);
        char byte = 'x';
        if (write(locked.in, &byte, 1) != 1 || read(may_end.out, &byte, 1) != 1) std::abort();
    });
    char byte = 0;
    outcome.ok("locked", read(locked.out, &byte, 1));
    memory.away();
    outcome.ok("end", write(may_end.in, &byte, 1));
    owner.join();
    const timespec deadline = in_seconds(3);
    const int error = pthread_mutex_timedlock(mutex, &deadline);
    outcome.text("timedlock", strerrorname_np(error) == nullptr ? "0" : strerrorname_np(error));
    if (error != EOWNERDEAD) return;
    outcome.note("consistent", pthread_mutex_consistent(mutex));
    outcome.note("unlock", pthread_mutex_unlock(mutex));
}

void condition_case(Memory& memory, Outcome& outcome) {
    pthread_mutex_t* const mutex = new_mutex(memory, Kind::normal);
    auto* const condition = memory.put<pthread_cond_t>(PTHREAD_COND_INITIALIZER);
    bool flag = false;
    memory.away();
    outcome.note("wait", while_asleep(
                             memory,
                             [&] {
                                 const timespec deadline = in_seconds(20);
                                 int error = pthread_mutex_lock(mutex);
                                 while (error == 0 && !flag)
                                     error = pthread_cond_timedwait(condition, mutex, &deadline);
                                 pthread_mutex_unlock(mutex);
                                 return error;
                             },
                             [&] {
                                 pthread_mutex_lock(mutex);
                                 flag = true;
                                 memory.nudge();
                                 outcome.note("broadcast", pthread_cond_broadcast(condition));
                                 pthread_mutex_unlock(mutex);
                             }));
    memory.forget(condition);
}

void rwlock_case(Memory& memory, Outcome& outcome) {
    auto* const lock = memory.put<pthread_rwlock_t>(PTHREAD_RWLOCK_INITIALIZER);
    memory.away();
    outcome.note("wrlock", pthread_rwlock_wrlock(lock));
    memory.away();
    outcome.note("the reader", while_asleep(
                                   memory,
                                   [&] {
                                       const int error = pthread_rwlock_rdlock(lock);
                                       return error != 0 ? error : pthread_rwlock_unlock(lock);
                                   },
                                   [&] {
                                       memory.nudge();
                                       outcome.note("unlock", pthread_rwlock_unlock(lock));
                                   }));
    memory.forget(lock);
}

void semaphore_case(Memory& memory, Outcome& outcome) {
    auto* const semaphore = memory.put<sem_t>();
    auto* const deadline = memory.put(in_seconds(20));
    outcome.ok("init", sem_init(semaphore, 0, 0));
    memory.away();
    outcome.ok("wait", while_asleep(
                           memory, [&] { return sem_timedwait(semaphore, deadline); },
                           [&] { outcome.ok("post", sem_post(semaphore)); }));
    memory.forget(deadline);
}

void barrier_case(Memory& memory, Outcome& outcome) {
    auto* const barrier = memory.put<pthread_barrier_t>();
    outcome.note("init", pthread_barrier_init(barrier, nullptr, 2));
    int mine = 0;
    memory.away();
    const long other = while_asleep(
        memory, [&] { return pthread_barrier_wait(barrier); }, [&] { mine = pthread_barrier_wait(barrier); });
    outcome.note("one is the serial one", other + mine);
    memory.forget(barrier);
}

// A system call of a process that shares this one's memory and its thread's local storage: libc must not be
// asked.
long bare_syscall(long number, long first, long second, long third) {
    long result = 0;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(first), "S"(second), "d"(third)
                 : "rcx", "r11", "memory");
    return result;
}

// Both numbers are written when it begins, and one is cleared when it ends.
void clone_case(Memory& memory, Outcome& outcome) {
    const Ends may_end = new_pipe();
    int* const parents = memory.put(-1);
    int* const childs = memory.put(-1);
    memory.away();
    static char stack[65536] __attribute__((aligned(16)));
    int fd = may_end.out;
    const auto body = [](void* descriptor) {
        char byte = 0;
        bare_syscall(SYS_read, *static_cast<int*>(descriptor), reinterpret_cast<long>(&byte), 1);
        return 0;
    };
    const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_PARENT_SETTID |
                      CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
    const int child = clone(body, stack + sizeof(stack), flags, &fd, parents, nullptr, childs);
    outcome.check("clone", child > 0);
    outcome.check("the parent's number", *parents == child);
    // The child's is written when it first runs.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (std::atomic_ref(*childs).load() == -1 && std::chrono::steady_clock::now() < deadline)
        sched_yield();
    outcome.check("the child's number", *childs == child);
    memory.away();
    outcome.ok("end", write(may_end.in, "x", 1));
    outcome.note("status", exit_status(child));
    outcome.note("cleared", *childs);
    memory.forget(parents);
    memory.forget(childs);
}

// The same by set_tid_address(2), for a thread's own number.
void tid_address_case(Memory& memory, Outcome& outcome) {
    struct Shared {
        int fd;
        int* number;
    };
    const Ends may_end = new_pipe();
    int* const number = memory.put(77);
    Shared shared = {may_end.out, number};
    static char stack[65536] __attribute__((aligned(16)));
    const auto body = [](void* argument) {
        const auto* const given = static_cast<Shared*>(argument);
        char byte = 0;
        bare_syscall(SYS_set_tid_address, reinterpret_cast<long>(given->number), 0, 0);
        bare_syscall(SYS_read, given->fd, reinterpret_cast<long>(&byte), 1);
        return 0;
    };
    const int child = clone(body, stack + sizeof(stack), CLONE_VM | CLONE_FILES | SIGCHLD, &shared);
    outcome.check("clone", child > 0);
    memory.away();
    outcome.ok("end", write(may_end.in, "x", 1));
    outcome.note("status", exit_status(child));
    outcome.note("cleared", *number);
}

// clone3(2) reads its arguments, and writes where they say.
void clone3_case(Memory& memory, Outcome& outcome) {
    struct Arguments {
        std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    };
    int* const pidfd = memory.put(-1);
    auto* const arguments =
        memory.put<Arguments>({CLONE_PIDFD, reinterpret_cast<std::uint64_t>(pidfd), 0, 0, SIGCHLD, 0, 0, 0});
    memory.away();
    const long child = syscall(SYS_clone3, arguments, sizeof(Arguments));
    if (child == 0) bare_syscall(SYS_exit_group, 7, 0, 0);
    outcome.check("clone3", child > 0);
    outcome.note("status", exit_status(static_cast<pid_t>(child)));
    outcome.check("pidfd", Fd(*pidfd) >= 0);
    memory.forget(pidfd);
    memory.forget(arguments);
}

// A child that runs on far memory of its parent's, sharing it.
void vm_sharing_case(Memory& memory, Outcome& outcome) {
    struct Shared {
        std::byte* data;
        std::size_t bytes;
        int fd;
    };
    const Ends ends = new_pipe();
    const std::size_t bytes = std::min<std::size_t>(memory.data_bytes(), 65536);
    Shared shared = {memory.data(3, bytes), bytes, ends.in};
    static char stack[65536] __attribute__((aligned(16)));
    const auto body = [](void* argument) {
        auto* const given = static_cast<Shared*>(argument);
        const long written = bare_syscall(SYS_write, given->fd, reinterpret_cast<long>(given->data),
                                          static_cast<long>(given->bytes));
        for (std::size_t i = 0; i < given->bytes; i += 50) given->data[i] = std::byte{'!'};
        return written == static_cast<long>(given->bytes) ? 0 : 1;
    };
    memory.away();
    const int child = clone(body, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &shared);
    outcome.check("clone", child > 0);
    outcome.note("status", exit_status(child));
    std::string taken(bytes, '\0');
    outcome.ok("read", read(ends.out, taken.data(), bytes));
    outcome.text("taken", taken);
}

void robust_list_case(Memory& memory, Outcome& outcome) {
    auto* const head = memory.put<void*>();
    auto* const bytes = memory.put<std::size_t>();
    memory.away();
    outcome.ok("get_robust_list", syscall(SYS_get_robust_list, 0, head, bytes));
    outcome.check("head", *head != nullptr);
    outcome.note("length", static_cast<long>(*bytes));
    memory.forget(head);
}

// The kernel writes the processor's number there whenever it preempted the thread. The thread itself takes no
// pages out: it would wait for itself.
void rseq_case(Memory& memory, Outcome& outcome) {
    constexpr std::uint32_t signature = RSEQ_SIG;
    auto* const area = reinterpret_cast<struct rseq*>(memory.place_pages(sizeof(struct rseq)));
    std::memset(static_cast<void*>(area), 0, sizeof(*area));
    area->cpu_id = static_cast<std::uint32_t>(RSEQ_CPU_ID_UNINITIALIZED);
    std::atomic<bool> is_registered = false;
    std::atomic<bool> may_end = false;
    long results[4] = {};
    memory.away();
    std::thread registered([&] {
        auto* const libcs = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
        const bool had_one = __rseq_size != 0;
        if (had_one) results[0] = syscall(SYS_rseq, libcs, 32, RSEQ_FLAG_UNREGISTER, signature);
        results[1] = syscall(SYS_rseq, area, 32, 0, signature);
        is_registered = true;
        while (!may_end) std::this_thread::sleep_for(std::chrono::microseconds(50));
        results[2] = syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, signature);
        if (had_one) results[3] = syscall(SYS_rseq, libcs, 32, 0, signature);
    });
    while (!is_registered) sched_yield();
    for (int i = 0; i < 20; ++i) {
        memory.nudge();
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    outcome.check("a processor", area->cpu_id < 4096);
    may_end = true;
    registered.join();
    for (const long result : results) outcome.ok("rseq", result);
    memory.forget(area);
}

constexpr Case cases[] = {
    {"Futex", Access::synchronous, futex_case, false},
    {"FutexWait", Access::asleep, futex_wait_case, false},
    {"FutexWakeOp", Access::unqueued, futex_wake_op_case, false},
    {"FutexLockPi", Access::unqueued, futex_pi_case, false},
    {"FutexWaitv", Access::synchronous, futex_waitv_case, false},
    {"Mutex", Access::asleep, mutex_case, false},
    {"MutexThatInherits", Access::unqueued, inheriting_mutex_case, false},
    {"MutexOfADeadOwner", Access::exit, robust_mutex_case, false},
    {"Condition", Access::asleep, condition_case, false},
    {"ReadWriteLock", Access::asleep, rwlock_case, false},
    {"Semaphore", Access::asleep, semaphore_case, false},
    {"Barrier", Access::asleep, barrier_case, false},
    {"CloneNumbers", Access::exit, clone_case, false},
    {"SetTidAddress", Access::exit, tid_address_case, false},
    {"Clone3", Access::synchronous, clone3_case, false},
    {"CloneOfMemory", Access::synchronous, vm_sharing_case},
    {"GetRobustList", Access::synchronous, robust_list_case, false},
    {"Rseq", Access::signal, rseq_case, false},
};

}  // namespace

std::span<const Case> thread_cases() {
    return cases;
}

}  // namespace kernel_access
