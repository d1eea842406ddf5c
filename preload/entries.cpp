// What replaces libc's and libjemalloc's allocator: one line each where jemalloc can be entered, else
// entries_slow.h.
#include <cerrno>
#include <cstdint>
#include <cstdlib>

#include "pnode/pnode.h"
#include "preload/entries_slow.h"
#include "preload/jemalloc.h"
#include "preload/thread_state.h"

#define PN_ENTRY extern "C" [[gnu::visibility("default")]]

namespace {

using namespace pnode::preload;

bool ready() noexcept {
    return __builtin_expect(thread_state == thread_ready, 1);
}

// A large block is the slow path's: it costs enough itself.
bool ready_for(std::size_t bytes) noexcept {
    return __builtin_expect(thread_state == thread_ready && bytes < large_bytes_min, 1);
}

// Free needs no arena of its own, but must stay out of jemalloc inside the runtime, and knows the bootstrap
// arena.
bool is_jemallocs(const void* address) noexcept {
    return __builtin_expect(thread_state == thread_ready && !bootstrap_owns(address), 1);
}

// The second level of pthread_setspecific's values: libc asks for it with these very numbers, and clears
// those of all other threads *in a forked child, before any fork handler runs there*. So they must not lie in
// the heap (README.md).
bool is_thread_specific_block(std::size_t count, std::size_t bytes) noexcept {
    return __builtin_expect(count == 32 && bytes == 16, 0);
}

}  // namespace

PN_ENTRY void* malloc(std::size_t bytes) noexcept {
    return ready_for(bytes) ? pn_je_malloc(bytes) : slow_malloc(bytes);
}

PN_ENTRY void* calloc(std::size_t count, std::size_t bytes) noexcept {
    std::size_t all = 0;
    if (__builtin_mul_overflow(count, bytes, &all) || !ready_for(all) ||
        is_thread_specific_block(count, bytes))
        return slow_calloc(count, bytes);
    return pn_je_calloc(count, bytes);
}

// jemalloc 5.3 forgets errno when the new size is past its largest.
PN_ENTRY void* realloc(void* address, std::size_t bytes) noexcept {
    void* block = ready_for(bytes) && is_jemallocs(address) ? pn_je_realloc(address, bytes)
                                                            : slow_realloc(address, bytes);
    if (__builtin_expect(block == nullptr && bytes != 0, 0)) errno = ENOMEM;
    return block;
}

PN_ENTRY void free(void* address) noexcept {
    return is_jemallocs(address) ? pn_je_free(address) : slow_free(address);
}

PN_ENTRY void* reallocarray(void* address, std::size_t count, std::size_t bytes) noexcept {
    std::size_t all = 0;
    if (__builtin_mul_overflow(count, bytes, &all)) {
        errno = ENOMEM;
        return nullptr;
    }
    return realloc(address, all);
}

PN_ENTRY int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept {
    return ready_for(bytes) ? pn_je_posix_memalign(out, alignment, bytes)
                            : slow_posix_memalign(out, alignment, bytes);
}

PN_ENTRY void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
    return ready_for(bytes) ? pn_je_aligned_alloc(alignment, bytes) : slow_aligned_alloc(alignment, bytes);
}

// As glibc has it, an alignment that is no power of two is raised to one; jemalloc would call it undefined.
PN_ENTRY void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
    std::size_t power = sizeof(void*);
    while (power < alignment && power <= SIZE_MAX / 4) power *= 2;
    return aligned_alloc(power, bytes);
}

PN_ENTRY void* valloc(std::size_t bytes) noexcept {
    return aligned_alloc(PN_PAGE_BYTES, bytes);
}

PN_ENTRY void* pvalloc(std::size_t bytes) noexcept {
    const std::size_t pages = (bytes + PN_PAGE_BYTES - 1) & ~std::size_t{PN_PAGE_BYTES - 1};
    if (pages < bytes) {
        errno = ENOMEM;
        return nullptr;
    }
    return aligned_alloc(PN_PAGE_BYTES, pages);
}

PN_ENTRY std::size_t malloc_usable_size(void* address) noexcept {
    return bootstrap_owns(address) ? bootstrap_usable_bytes(address) : pn_je_malloc_usable_size(address);
}

// ---- jemalloc's own interface: a program that was linked with libjemalloc.so must not mix two allocators
// ----

PN_ENTRY void* mallocx(std::size_t bytes, int flags) noexcept {
    return ready_for(bytes) ? pn_je_mallocx(bytes, flags) : slow_mallocx(bytes, flags);
}

PN_ENTRY void* rallocx(void* address, std::size_t bytes, int flags) noexcept {
    return ready_for(bytes) && is_jemallocs(address) ? pn_je_rallocx(address, bytes, flags)
                                                     : slow_rallocx(address, bytes, flags);
}

PN_ENTRY std::size_t xallocx(void* address, std::size_t bytes, std::size_t extra, int flags) noexcept {
    return is_jemallocs(address) ? pn_je_xallocx(address, bytes, extra, flags) : sallocx(address, flags);
}

PN_ENTRY std::size_t sallocx(const void* address, int flags) noexcept {
    return bootstrap_owns(address) ? bootstrap_usable_bytes(address) : pn_je_sallocx(address, flags);
}

PN_ENTRY void dallocx(void* address, int flags) noexcept {
    return is_jemallocs(address) ? pn_je_dallocx(address, flags) : slow_free(address);
}

PN_ENTRY void sdallocx(void* address, std::size_t bytes, int flags) noexcept {
    return is_jemallocs(address) ? pn_je_sdallocx(address, bytes, flags) : slow_free(address);
}

PN_ENTRY std::size_t nallocx(std::size_t bytes, int flags) noexcept {
    return pn_je_nallocx(bytes, flags);
}

PN_ENTRY int mallctl(const char* name, void* old_value, std::size_t* old_bytes, void* new_value,
                     std::size_t new_bytes) noexcept {
    if (!ready() && !slow_ready()) return EAGAIN;
    return pn_je_mallctl(name, old_value, old_bytes, new_value, new_bytes);
}

PN_ENTRY int mallctlnametomib(const char* name, std::size_t* mib, std::size_t* mib_length) noexcept {
    if (!ready() && !slow_ready()) return EAGAIN;
    return pn_je_mallctlnametomib(name, mib, mib_length);
}

PN_ENTRY int mallctlbymib(const std::size_t* mib, std::size_t mib_length, void* old_value,
                          std::size_t* old_bytes, void* new_value, std::size_t new_bytes) noexcept {
    if (!ready() && !slow_ready()) return EAGAIN;
    return pn_je_mallctlbymib(mib, mib_length, old_value, old_bytes, new_value, new_bytes);
}

PN_ENTRY void malloc_stats_print(void (*write)(void*, const char*), void* context,
                                 const char* options) noexcept {
    if (ready() || slow_ready()) pn_je_malloc_stats_print(write, context, options);
}
