#include "runtime/os/thread.h"

#include <dlfcn.h>

namespace pnode::os {
namespace {

// glibc's count of threads that have not ended. Not in its headers, but exported (GLIBC_PRIVATE) since 2.34;
// in another libc there is none, and a program that ends by its last thread's end does not end.
constinit std::atomic<unsigned*> thread_count{nullptr};

}  // namespace

void Thread::find_count() noexcept {
    if (thread_count.load(std::memory_order_relaxed) != nullptr) return;
    thread_count.store(static_cast<unsigned*>(::dlsym(RTLD_DEFAULT, "__nptl_nthreads")),
                       std::memory_order_relaxed);
}

void Thread::count_as(int change) noexcept {
    if (unsigned* const count = thread_count.load(std::memory_order_relaxed))
        __atomic_fetch_add(count, static_cast<unsigned>(change), __ATOMIC_RELAXED);
}

}  // namespace pnode::os
