// The same memory twice: once as a program maps it, under the preload library the heap's, and once by the raw
// system calls, the kernel's. Whatever is done to one is done to the other; results, errno and contents must
// be equal.
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace preload_test {

// The kernel's own calls, past libc's names and whoever took them.
namespace raw {

inline void* map(void* address, std::size_t bytes, int protection, int flags, int fd = -1, off_t offset = 0) {
    return reinterpret_cast<void*>(syscall(SYS_mmap, address, bytes, protection, flags, fd, offset));
}
inline int unmap(void* address, std::size_t bytes) {
    return static_cast<int>(syscall(SYS_munmap, address, bytes));
}
inline void* remap(void* address, std::size_t old_bytes, std::size_t bytes, int flags,
                   void* target = nullptr) {
    return reinterpret_cast<void*>(syscall(SYS_mremap, address, old_bytes, bytes, flags, target));
}
inline int protect(void* address, std::size_t bytes, int protection) {
    return static_cast<int>(syscall(SYS_mprotect, address, bytes, protection));
}
inline int advise(void* address, std::size_t bytes, int advice) {
    return static_cast<int>(syscall(SYS_madvise, address, bytes, advice));
}
inline int lock(const void* address, std::size_t bytes) {
    return static_cast<int>(syscall(SYS_mlock, address, bytes));
}
inline int unlock(const void* address, std::size_t bytes) {
    return static_cast<int>(syscall(SYS_munlock, address, bytes));
}
inline int in_core(void* address, std::size_t bytes, unsigned char* vector) {
    return static_cast<int>(syscall(SYS_mincore, address, bytes, vector));
}
inline int sync(void* address, std::size_t bytes, int flags) {
    return static_cast<int>(syscall(SYS_msync, address, bytes, flags));
}

}  // namespace raw

// What a call said: 0 and no errno, or -1 and one.
struct Result {
    bool failed;
    int error;
    bool operator==(const Result&) const = default;
};

template <class Call>
Result result_of(Call call) {
    errno = 0;
    const bool failed = call();
    return {failed, errno};
}

// May the kernel read a byte there, on the program's behalf? What raises SIGSEGV says EFAULT here.
class Prober {
  public:
    Prober() {
        if (pipe(ends_) != 0) ends_[0] = ends_[1] = -1;
    }
    ~Prober() {
        close(ends_[0]);
        close(ends_[1]);
    }
    Prober(const Prober&) = delete;
    Prober& operator=(const Prober&) = delete;
    bool can_read(const void* address) const {
        char byte = 0;
        return write(ends_[1], address, 1) == 1 && read(ends_[0], &byte, 1) == 1;
    }

  private:
    int ends_[2];
};

}  // namespace preload_test
