// System calls made by our own instructions, not by libc's: the value, or minus an errno, as the kernel gives
// it; errno is left alone. Under Syscall User Dispatch (preload/shield) a call from our own text goes
// straight to the kernel, one from libc's text is dispatched to a signal handler first: so the fault path
// makes its calls here.
//
// Thread rule: any thread, any context.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace pnode::os {

#ifdef __x86_64__
// Six arguments always: the kernel reads as many as the call has.
inline long system_call_6(long number, long a, long b, long c, long d, long e, long f) noexcept {
    long result = 0;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}
#else
inline long system_call_6(long number, long a, long b, long c, long d, long e, long f) noexcept {
    const int saved_errno = errno;
    const long result = ::syscall(number, a, b, c, d, e, f);
    const int error = errno;
    errno = saved_errno;
    return result == -1 ? -error : result;
}
#endif

// What a system call takes, as a register holds it.
template <class T>
long argument(T value) noexcept {
    return static_cast<long>(value);
}
template <class T>
long argument(T* value) noexcept {
    return reinterpret_cast<long>(value);
}
inline long argument(std::nullptr_t) noexcept {
    return 0;
}

template <class... Arguments>
long system_call(long number, Arguments... arguments) noexcept {
    static_assert(sizeof...(arguments) <= 6);
    const long all[7] = {argument(arguments)...};
    return system_call_6(number, all[0], all[1], all[2], all[3], all[4], all[5]);
}

// Did it fail? Values of mmap() and its like may have the highest bit set.
inline bool is_error(long result) noexcept {
    return result < 0 && result >= -4095;
}

// As functions that answer with an errno: 0, or what is wrong.
inline int error_of(long result) noexcept {
    return is_error(result) ? static_cast<int>(-result) : 0;
}

}  // namespace pnode::os
