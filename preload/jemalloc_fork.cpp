#include "preload/jemalloc_fork.h"

#include <atomic>

#include "runtime/os/system_call.h"
#include "runtime/os/thread.h"

// jemalloc's own, by which its call of pthread_atfork() is told from others (the linker sends all of this
// library's here: -Wl,--wrap, CMakeLists.txt).
extern "C" {
void je_jemalloc_prefork();
void je_jemalloc_postfork_parent();
void je_jemalloc_postfork_child();
int __real_pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)()) noexcept;
int __wrap_pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)()) noexcept;
}

namespace pnode::preload {
namespace {

// A child of vfork() sees another process's threads when it counts, and this one's memory.
constinit std::atomic<long> process_of_memory{0};
// Of the thread that forks, from its prepare handler on.
__thread bool has_locked __attribute__((tls_model("initial-exec"))) = false;

void prepare() {
    const bool alone = process_of_memory.load(std::memory_order_relaxed) == os::system_call(SYS_getpid) &&
                       os::Thread::is_programs_only_one();
    has_locked = !alone;
    if (has_locked) je_jemalloc_prefork();
}

void in_parent() {
    if (has_locked) je_jemalloc_postfork_parent();
}

void in_child() {
    if (has_locked) je_jemalloc_postfork_child();
}

}  // namespace

void jemalloc_fork_in_child() noexcept {
    process_of_memory.store(os::system_call(SYS_getpid), std::memory_order_relaxed);
}

}  // namespace pnode::preload

extern "C" int __wrap_pthread_atfork(void (*prepare)(), void (*parent)(), void (*child)()) noexcept {
    using namespace pnode::preload;
    if (prepare != je_jemalloc_prefork) return __real_pthread_atfork(prepare, parent, child);
    jemalloc_fork_in_child();
    return __real_pthread_atfork(pnode::preload::prepare, in_parent, in_child);
}
