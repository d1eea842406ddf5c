#include "runtime/os/processors.h"

#include <sched.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstddef>

#include "runtime/os/system_call.h"

// Weak: before glibc 2.35 there is none, and its size is 0 where it was not registered.
extern "C" const std::ptrdiff_t __rseq_offset __attribute__((weak));
extern "C" const unsigned int __rseq_size __attribute__((weak));

namespace pnode::os {
namespace {

// What the kernel was told of a thread's robust mutexes, which may be any thread's of the process; 0:
// nothing.
std::uint64_t robust_list_of(std::uint32_t thread) noexcept {
    std::uint64_t head = 0;
    std::size_t bytes = 0;
    return is_error(system_call(SYS_get_robust_list, thread, &head, &bytes)) ? 0 : head;
}

bool read_own(void* to, std::uint64_t from, std::size_t bytes) noexcept {
    const iovec local{to, bytes};
    const iovec remote{reinterpret_cast<void*>(from), bytes};
    return system_call(SYS_process_vm_readv, ::getpid(), &local, 1, &remote, 1, 0) ==
           static_cast<long>(bytes);
}

}  // namespace

unsigned processors_allowed() noexcept {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    return ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? static_cast<unsigned>(CPU_COUNT(&allowed))
                                                                 : 1;
}

std::uint64_t processor_word_of(std::uint32_t thread) noexcept {
    constexpr std::size_t processor_at = 4;  // `cpu_id` of struct rseq
    if (&__rseq_size == nullptr || __rseq_size == 0) return 0;
    const std::uint64_t mine = robust_list_of(0);
    const std::uint64_t theirs = robust_list_of(thread);
    if (mine == 0 || theirs == 0) return 0;
    const auto pointer = reinterpret_cast<std::uint64_t>(__builtin_thread_pointer());
    return theirs - mine + pointer + static_cast<std::uint64_t>(__rseq_offset) + processor_at;
}

int processor_told_at(std::uint64_t word) noexcept {
    std::int32_t processor = -1;
    if (word == 0 || !read_own(&processor, word, sizeof processor)) return -1;
    return processor >= 0 && processor < CPU_SETSIZE ? processor : -1;
}

}  // namespace pnode::os
