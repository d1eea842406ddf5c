// A thread of the runtime's: every signal but two blocked (signals_blocked.h), on a stack of ours.
//
// The stack is ours because glibc would hand out a cached one of some thread that ended, with tables that
// malloc gave that thread: under the preload library those lie in managed memory, and in a forked child they
// would be written before their pages are watched.
//
// libc ends the process when its last thread does, which is how a program ends whose main thread called
// pthread_exit(3); ours, which never end, must not count for that (count_as).
//
// Thread rule: start(), join() and forget() by one thread at a time; is_running() and settle() by anybody.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "runtime/os/injection.h"
#include "runtime/os/memory.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/os/wait.h"

namespace pnode::os {

class Thread {
  public:
    // Room for what a program keeps in thread-local storage too, which is carved from the stack; touched as
    // far as it is used.
    static constexpr std::size_t stack_bytes = 2 * 1024 * 1024;

    // Once, before the first start(), by a thread that may call dlsym(3): it takes the loader's lock.
    static void find_count() noexcept;

    // 0 or an errno. The thread may not have begun when this returns: see settle().
    int start(void* (*main)(void*), void* argument) noexcept {
        const SignalsBlocked inherited_by_the_thread;
        if (const int error = injected(Call::start_thread)) return error;
        if (stack_.address() == nullptr) {
            if (const int error = stack_.map(stack_bytes + page)) return error;
            ::mprotect(stack_.address(), page,
                       PROT_NONE);  // a guard; without it an overflow is merely found later
        }
        pthread_attr_t attributes;
        if (const int error = ::pthread_attr_init(&attributes)) return error;
        int error = ::pthread_attr_setstack(&attributes, stack_.address() + page, stack_bytes);
        main_ = main;
        argument_ = argument;
        begun_.store(0, std::memory_order_relaxed);
        if (error == 0) error = ::pthread_create(&thread_, &attributes, &Thread::begin, this);
        ::pthread_attr_destroy(&attributes);
        if (error == 0) count_as(-1);
        running_.store(error == 0, std::memory_order_release);
        return error;
    }
    // Waits until the thread, if there is one, has begun. A fork must find it past libc's (and a
    // sanitizer's) own start, which takes locks that a child would inherit; whoever starts it need not wait.
    void settle() noexcept {
        while (is_running() && begun_.load(std::memory_order_acquire) == 0) futex_wait(begun_, 0);
    }
    void join() noexcept {
        if (is_running()) ::pthread_join(thread_, nullptr);
        forget();
    }
    // In a forked child: the thread is not here, and its stack can be used again.
    void forget() noexcept { running_.store(false, std::memory_order_relaxed); }
    bool is_running() const noexcept { return running_.load(std::memory_order_acquire); }

    // Is the calling thread, which is none of ours, the only one of the process that is not? False also where
    // /proc does not tell. Not in a child of vfork(), which sees its own threads there and our counts of its
    // parent's.
    static bool is_programs_only_one() noexcept;
    // In a forked child, before it starts any.
    static void forget_all() noexcept;

  private:
    static void* begin(void* self) {
        // What the runtime does itself is not dispatched to the shield (preload/shield), which may have armed
        // the thread.
        constexpr int set_dispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH
        system_call(SYS_prctl, set_dispatch, 0, 0, 0, 0);
        begun_ever.fetch_add(1);
        Thread& thread = *static_cast<Thread*>(self);
        void* (*const main)(void*) = thread.main_;
        void* const argument = thread.argument_;
        thread.begun_.store(1, std::memory_order_release);  // pairs with settle()'s acquire
        futex_wake_all(thread.begun_);
        void* const result = main(argument);
        count_as(+1);  // libc is about to count it off
        ended_ever.fetch_add(1);
        return result;
    }
    // Changes libc's count of threads, where it can be found.
    static void count_as(int change) noexcept;

    // Of all of ours. Both change while the thread is there, so that no more are counted than there are.
    static std::atomic<std::uint64_t> begun_ever;
    static std::atomic<std::uint64_t> ended_ever;

    static constexpr std::size_t page = 4096;
    void* (*main_)(void*) = nullptr;
    void* argument_ = nullptr;
    std::atomic<std::uint32_t> begun_{0};
    Mapping stack_;
    pthread_t thread_{};
    std::atomic<bool> running_{false};  // release: settle() finds begun_ reset
};

}  // namespace pnode::os
