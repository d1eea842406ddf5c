// operator new and delete, every form. They are malloc and free, but for what happens without memory.
//
// The library brings its own C++ run-time library, hidden (README.md); what a program can see, its new
// handler and the exception it catches, is the program's own and is looked up when it is needed.
#include <dlfcn.h>

#include <cstddef>
#include <cstdlib>
#include <new>

#include "preload/jemalloc.h"
#include "preload/thread_state.h"

#define PN_OPERATOR [[gnu::visibility("default")]]

namespace {

using namespace pnode::preload;

using Handler = void (*)();

void* allocate(std::size_t bytes) noexcept {
    const bool at_once = thread_state == thread_ready && bytes < large_bytes_min;
    return __builtin_expect(at_once, 1) ? pn_je_malloc(bytes) : std::malloc(bytes);
}

void* allocate(std::size_t bytes, std::align_val_t alignment) noexcept {
    void* block = nullptr;
    std::size_t power = static_cast<std::size_t>(alignment);
    if (power < sizeof(void*)) power = sizeof(void*);
    return posix_memalign(&block, power, bytes) == 0 ? block : nullptr;
}

Handler program_new_handler() noexcept {
    const auto get = reinterpret_cast<Handler (*)()>(dlsym(RTLD_DEFAULT, "_ZSt15get_new_handlerv"));
    return get == nullptr ? nullptr : get();
}

// A program without a C++ run-time library of its own to be seen cannot catch anything.
[[noreturn]] void throw_bad_alloc() {
    const auto thrower = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv"));
    if (thrower != nullptr) thrower();
    std::abort();
}

// The handler may throw, make room, or never return.
template <typename... Alignment>
[[gnu::noinline, gnu::cold]] void* handle_no_memory(std::size_t bytes, Alignment... alignment) {
    while (const Handler handler = program_new_handler()) {
        handler();
        if (void* block = allocate(bytes, alignment...)) return block;
    }
    throw_bad_alloc();
}

template <typename... Alignment>
void* must_allocate(std::size_t bytes, Alignment... alignment) {
    void* block = allocate(bytes, alignment...);
    return __builtin_expect(block != nullptr, 1) ? block : handle_no_memory(bytes, alignment...);
}

template <typename... Alignment>
void* may_allocate(std::size_t bytes, Alignment... alignment) noexcept {
    if (void* block = allocate(bytes, alignment...)) return block;
    try {
        return program_new_handler() == nullptr ? nullptr : handle_no_memory(bytes, alignment...);
    } catch (...) {
        return nullptr;
    }
}

}  // namespace

PN_OPERATOR void* operator new(std::size_t bytes) {
    return must_allocate(bytes);
}
PN_OPERATOR void* operator new[](std::size_t bytes) {
    return must_allocate(bytes);
}
PN_OPERATOR void* operator new(std::size_t bytes, std::align_val_t alignment) {
    return must_allocate(bytes, alignment);
}
PN_OPERATOR void* operator new[](std::size_t bytes, std::align_val_t alignment) {
    return must_allocate(bytes, alignment);
}
PN_OPERATOR void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    return may_allocate(bytes);
}
PN_OPERATOR void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
    return may_allocate(bytes);
}
PN_OPERATOR void* operator new(std::size_t bytes, std::align_val_t alignment,
                               const std::nothrow_t&) noexcept {
    return may_allocate(bytes, alignment);
}
PN_OPERATOR void* operator new[](std::size_t bytes, std::align_val_t alignment,
                                 const std::nothrow_t&) noexcept {
    return may_allocate(bytes, alignment);
}

PN_OPERATOR void operator delete(void* block) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete[](void* block) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete(void* block, std::size_t) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete[](void* block, std::size_t) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete(void* block, const std::nothrow_t&) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete[](void* block, const std::nothrow_t&) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete(void* block, std::align_val_t) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete[](void* block, std::align_val_t) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete[](void* block, std::size_t, std::align_val_t) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept {
    std::free(block);
}
PN_OPERATOR void operator delete[](void* block, std::align_val_t, const std::nothrow_t&) noexcept {
    std::free(block);
}
