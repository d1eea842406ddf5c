#include "runtime/os/thread.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>

namespace pnode::os {
namespace {

// glibc's count of threads that have not ended. Not in its headers, but exported (GLIBC_PRIVATE) since 2.34;
// in another libc there is none, and a program that ends by its last thread's end does not end.
constinit std::atomic<unsigned*> thread_count{nullptr};

// 0: /proc does not tell. The kernel gives the folder a link for each thread, beside a folder's own two; of
// those that end it counts the ones that are not out of the program's memory yet.
std::uint64_t threads_of_process() noexcept {
    constexpr std::uint64_t links_of_a_folder = 2;
    struct stat folder {};
    const long error = system_call(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &folder, 0);
    return error == 0 && folder.st_nlink > links_of_a_folder ? folder.st_nlink - links_of_a_folder : 0;
}

}  // namespace

constinit std::atomic<std::uint64_t> Thread::begun_ever{0};
constinit std::atomic<std::uint64_t> Thread::ended_ever{0};

void Thread::find_count() noexcept {
    if (thread_count.load(std::memory_order_relaxed) != nullptr) return;
    thread_count.store(static_cast<unsigned*>(::dlsym(RTLD_DEFAULT, "__nptl_nthreads")),
                       std::memory_order_relaxed);
}

void Thread::count_as(int change) noexcept {
    if (unsigned* const count = thread_count.load(std::memory_order_relaxed))
        __atomic_fetch_add(count, static_cast<unsigned>(change), __ATOMIC_RELAXED);
}

bool Thread::is_programs_only_one() noexcept {
    const std::uint64_t begun = begun_ever.load();
    const std::uint64_t ended = ended_ever.load();
    const std::uint64_t all = threads_of_process();
    // Had one of ours begun or ended meanwhile, another one of the program's could be taken for it.
    return all == begun - ended + 1 && begun_ever.load() == begun && ended_ever.load() == ended;
}

void Thread::forget_all() noexcept {
    begun_ever.store(0);
    ended_ever.store(0);
}

}  // namespace pnode::os
