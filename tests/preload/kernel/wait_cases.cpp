// Waiting for descriptors and for time.
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

void poll_case(Memory& memory, Outcome& outcome) {
    const Ends ready = new_pipe();
    const Ends idle = new_pipe();
    outcome.ok("write", write(ready.in, "x", 1));
    auto* const polled =
        memory.put_all<pollfd, 2>({pollfd{ready.out, POLLIN, 0}, pollfd{idle.out, POLLIN, 0}});
    auto* const timeout = memory.put<timespec>({0, 0});
    auto* const mask = memory.put<std::uint64_t>(0);
    memory.away();
    outcome.ok("poll", poll(polled, 2, 0));
    memory.away();
    outcome.ok("ppoll", syscall(SYS_ppoll, polled, 2, timeout, mask, 8));
    outcome.note("ready", polled[0].revents);
    outcome.note("idle", polled[1].revents);
    memory.forget(polled);
}

void poll_that_waits_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_pipe();
    auto* const polled = memory.put<pollfd>({ends.out, POLLIN, 0});
    memory.away();
    outcome.ok("poll", while_asleep(
                           memory, [&] { return poll(polled, 1, 20000); },
                           [&] { outcome.ok("write", write(ends.in, "x", 1)); }));
    outcome.note("ready", polled->revents);
    memory.forget(polled);
}

void select_case(Memory& memory, Outcome& outcome) {
    const Ends ready = new_pipe();
    const Ends idle = new_pipe();
    outcome.ok("write", write(ready.in, "x", 1));
    auto* const reads = memory.put<fd_set>();
    auto* const writes = memory.put<fd_set>();
    auto* const errors = memory.put<fd_set>();
    auto* const timeout = memory.put<timespec>({0, 0});
    struct Mask {
        const std::uint64_t* set;
        std::size_t bytes;
    };
    auto* const signals = memory.put<std::uint64_t>(0);
    auto* const mask = memory.put<Mask>({signals, 8});
    for (int way = 0; way < 2; ++way) {
        FD_SET(ready.out, reads);
        FD_SET(idle.out, reads);
        FD_SET(ready.in, writes);
        memory.away();
        outcome.ok("select", way == 0 ? syscall(SYS_select, 1000, reads, writes, errors, timeout)
                                      : syscall(SYS_pselect6, 1000, reads, writes, errors, timeout, mask));
        outcome.check("ready", FD_ISSET(ready.out, reads) && FD_ISSET(ready.in, writes));
        outcome.check("idle", !FD_ISSET(idle.out, reads));
        FD_ZERO(reads);
        FD_ZERO(writes);
    }
    memory.forget(mask);
}

void select_that_waits_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_pipe();
    auto* const reads = memory.put<fd_set>();
    auto* const timeout = memory.put<timeval>({20, 0});
    FD_SET(ends.out, reads);
    memory.away();
    outcome.ok("select", while_asleep(
                             memory, [&] { return select(1000, reads, nullptr, nullptr, timeout); },
                             [&] { outcome.ok("write", write(ends.in, "x", 1)); }));
    outcome.check("ready", FD_ISSET(ends.out, reads));
    outcome.check("time passed", timeout->tv_sec < 20);
    memory.forget(reads);
    memory.forget(timeout);
}

void epoll_case(Memory& memory, Outcome& outcome) {
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    const Ends ends = new_pipe();
    outcome.ok("write", write(ends.in, "x", 1));
    epoll_event wanted = {};
    wanted.events = EPOLLIN;
    wanted.data.u64 = 0x1234'5678'9abc'def0;
    auto* const event = memory.put(wanted);
    auto* const events = memory.put_all<epoll_event, 10>({});
    auto* const timeout = memory.put<timespec>({0, 0});
    auto* const mask = memory.put<std::uint64_t>(0);
    memory.away();
    outcome.ok("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, ends.out, event));
    memory.away();
    outcome.note("epoll_ctl again", epoll_ctl(epoll, EPOLL_CTL_ADD, ends.out, event));
    memory.away();
    outcome.ok("epoll_wait", epoll_wait(epoll, events, 10, 0));
    memory.away();
    outcome.ok("epoll_pwait", syscall(SYS_epoll_pwait, static_cast<int>(epoll), events, 10, 0, mask, 8));
    memory.away();
    outcome.note("epoll_pwait2", syscall(441, static_cast<int>(epoll), events, 10, timeout, mask, 8));
}

// The event is consumed before the kernel knows that it cannot be told: with edge triggering it would be
// lost.
void epoll_that_waits_case(Memory& memory, Outcome& outcome) {
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    const Ends ends = new_pipe();
    epoll_event wanted = {};
    wanted.events = EPOLLIN | EPOLLET | EPOLLONESHOT;
    wanted.data.u64 = 77;
    outcome.ok("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, ends.out, &wanted));
    auto* const events = memory.put_all<epoll_event, 10>({});
    memory.away();
    outcome.ok("epoll_wait", while_asleep(
                                 memory, [&] { return epoll_wait(epoll, events, 10, 20000); },
                                 [&] { outcome.ok("write", write(ends.in, "x", 1)); }));
}

void eventfd_case(Memory& memory, Outcome& outcome) {
    const Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    auto* const value = memory.put<std::uint64_t>(5);
    memory.away();
    outcome.ok("write", write(event, value, 8));
    *value = 0;
    memory.away();
    outcome.ok("read", read(event, value, 8));
}

void timerfd_case(Memory& memory, Outcome& outcome) {
    const Fd timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    auto* const wanted = memory.put<itimerspec>({{0, 0}, {0, 1}});
    auto* const before = memory.put<itimerspec>({{9, 9}, {9, 9}});
    auto* const expirations = memory.put<std::uint64_t>(0);
    memory.away();
    outcome.ok("timerfd_settime", timerfd_settime(timer, 0, wanted, before));
    memory.away();
    outcome.ok("read", read(timer, expirations, 8));
    memory.away();
    outcome.ok("timerfd_gettime", timerfd_gettime(timer, before));
}

void sleep_case(Memory& memory, Outcome& outcome) {
    auto* const wanted = memory.put<timespec>({0, 1000});
    auto* const left = memory.put<timespec>({5, 5});
    memory.away();
    outcome.ok("nanosleep", nanosleep(wanted, left));
    memory.away();
    outcome.ok("clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left));
}

void interrupted_sleep_case(Memory& memory, Outcome& outcome) {
    struct sigaction action = {};
    struct sigaction before = {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR2, &action, &before);
    auto* const wanted = memory.put<timespec>({20, 0});
    auto* const left = memory.put<timespec>({0, 0});
    std::atomic<int> sleeper = 0;
    std::atomic<bool> over = false;
    memory.away();
    outcome.note("nanosleep", while_asleep(
                                  memory,
                                  [&] {
                                      sleeper = gettid();
                                      const int result = nanosleep(wanted, left);
                                      over = true;
                                      return result;
                                  },
                                  [&] {  // again, should one come before it sleeps
                                      while (!over) {
                                          tgkill(getpid(), sleeper, SIGUSR2);
                                          std::this_thread::sleep_for(std::chrono::milliseconds(50));
                                      }
                                  }));
    outcome.check("time left", left->tv_sec > 0 && left->tv_sec <= 20);
    memory.forget(left);
    sigaction(SIGUSR2, &before, nullptr);
}

void clock_case(Memory& memory, Outcome& outcome) {
    auto* const time = memory.put<timespec>();
    memory.away();
    outcome.ok("clock_gettime", syscall(SYS_clock_gettime, CLOCK_REALTIME, time));
    outcome.check("its time", time->tv_sec > 1'000'000'000);
    *time = {};
    memory.away();
    outcome.ok("clock_getres", syscall(SYS_clock_getres, CLOCK_MONOTONIC, time));
    outcome.note("nanoseconds", time->tv_nsec);
    auto* const day = memory.put<timeval>();
    struct timezone* const zone = memory.put<struct timezone>();
    memory.away();
    outcome.ok("gettimeofday", syscall(SYS_gettimeofday, day, zone));
    outcome.check("its time", day->tv_sec > 1'000'000'000);
    auto* const seconds = memory.put<time_t>();
    memory.away();
    outcome.check("time", syscall(SYS_time, seconds) == *seconds);
    // Through libc too, where the kernel's page answers.
    memory.away();
    outcome.ok("clock_gettime of libc", clock_gettime(CLOCK_MONOTONIC, time));
    for (const void* object :
         {static_cast<void*>(time), static_cast<void*>(day), static_cast<void*>(seconds)})
        memory.forget(object);
}

void interval_timer_case(Memory& memory, Outcome& outcome) {
    auto* const wanted = memory.put<itimerval>({{0, 0}, {1000, 0}});
    auto* const before = memory.put<itimerval>({{9, 9}, {9, 9}});
    memory.away();
    outcome.ok("setitimer", setitimer(ITIMER_REAL, wanted, before));
    memory.away();
    outcome.ok("getitimer", getitimer(ITIMER_REAL, before));
    outcome.check("it runs", before->it_value.tv_sec > 900);
    memory.forget(before);
    *wanted = {};
    memory.away();
    outcome.ok("setitimer", setitimer(ITIMER_REAL, wanted, nullptr));
}

void posix_timer_case(Memory& memory, Outcome& outcome) {
    sigevent nothing = {};
    nothing.sigev_notify = SIGEV_NONE;
    auto* const event = memory.put(nothing);
    int* const id = memory.put(0);
    auto* const wanted = memory.put<itimerspec>({{0, 0}, {1000, 0}});
    auto* const before = memory.put<itimerspec>({{9, 9}, {9, 9}});
    memory.away();
    outcome.ok("timer_create", syscall(SYS_timer_create, CLOCK_MONOTONIC, event, id));
    memory.away();
    outcome.ok("timer_settime", syscall(SYS_timer_settime, *id, 0, wanted, before));
    const int number = *id;
    memory.away();
    outcome.ok("timer_gettime", syscall(SYS_timer_gettime, number, before));
    outcome.check("it runs", before->it_value.tv_sec > 900);
    outcome.ok("timer_delete", syscall(SYS_timer_delete, number));
    memory.forget(id);
    memory.forget(before);
}

constexpr Case cases[] = {
    {"Poll", Access::synchronous, poll_case, false},
    {"PollThatWaits", Access::asleep, poll_that_waits_case, false},
    {"Select", Access::synchronous, select_case, false},
    {"SelectThatWaits", Access::asleep, select_that_waits_case, false},
    {"Epoll", Access::synchronous, epoll_case, false},
    {"EpollThatWaits", Access::asleep, epoll_that_waits_case, false},
    {"Eventfd", Access::synchronous, eventfd_case, false},
    {"Timerfd", Access::asleep, timerfd_case, false},
    {"Sleep", Access::synchronous, sleep_case, false},
    {"SleepThatIsInterrupted", Access::asleep, interrupted_sleep_case, false},
    {"Clocks", Access::synchronous, clock_case, false},
    {"IntervalTimer", Access::synchronous, interval_timer_case, false},
    {"PosixTimer", Access::synchronous, posix_timer_case, false},
};

}  // namespace

std::span<const Case> wait_cases() {
    return cases;
}

}  // namespace kernel_access
