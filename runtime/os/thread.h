// A thread of the runtime's: every signal but SIGBUS blocked, on a stack of ours.
//
// The stack is ours because glibc would hand out a cached one of some thread that ended, with tables that
// malloc gave that thread: under the preload library those lie in managed memory, and in a forked child they
// would be written before their pages are watched.
//
// Thread rule: start(), join() and forget() by one thread at a time.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "runtime/os/memory.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/os/wait.h"

namespace pnode::os {

class Thread {
  public:
    // Room for what a program keeps in thread-local storage too, which is carved from the stack; touched as
    // far as it is used.
    static constexpr std::size_t stack_bytes = 2 * 1024 * 1024;

    // 0 or an errno. The thread runs when this returns: a fork right afterwards finds it past libc's (and a
    // sanitizer's) own start, which takes locks that a child would inherit.
    int start(void* (*main)(void*), void* argument) noexcept {
        const SignalsBlocked inherited_by_the_thread;
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
        running_ = error == 0;
        while (running_ && begun_.load(std::memory_order_acquire) == 0) futex_wait(begun_, 0);
        return error;
    }
    void join() noexcept {
        if (running_) ::pthread_join(thread_, nullptr);
        running_ = false;
    }
    // In a forked child: the thread is not here, and its stack can be used again.
    void forget() noexcept { running_ = false; }
    bool is_running() const noexcept { return running_; }

  private:
    static void* begin(void* self) {
        // What the runtime does itself is not dispatched to the shield (preload/shield), which may have armed the
        // thread.
        constexpr int set_dispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH
        system_call(SYS_prctl, set_dispatch, 0, 0, 0, 0);
        Thread& thread = *static_cast<Thread*>(self);
        void* (*const main)(void*) = thread.main_;
        void* const argument = thread.argument_;
        thread.begun_.store(1, std::memory_order_release);  // pairs with start()'s acquire
        futex_wake_all(thread.begun_);
        return main(argument);
    }

    static constexpr std::size_t page = 4096;
    void* (*main_)(void*) = nullptr;
    void* argument_ = nullptr;
    std::atomic<std::uint32_t> begun_{0};
    Mapping stack_;
    pthread_t thread_{};
    bool running_ = false;
};

}  // namespace pnode::os
