#include "preload/entries_slow.h"

#include <cerrno>
#include <cstring>

#include "preload/jemalloc.h"
#include "preload/process.h"
#include "preload/thread_state.h"

namespace pnode::preload {
namespace {

constexpr std::size_t natural_alignment = 16;
constexpr int plain_memory = MALLOCX_ARENA(0) | MALLOCX_TCACHE_NONE;  // the arena that has no heap behind it

void* from_bootstrap(std::size_t bytes, std::size_t alignment) noexcept {
    void* block = bootstrap_allocate(bytes, alignment);
    if (block == nullptr) errno = ENOMEM;
    return block;
}

bool is_power_of_two(std::size_t value) noexcept {
    return value != 0 && (value & (value - 1)) == 0;
}

std::size_t alignment_of(int flags) noexcept {
    const std::size_t alignment = std::size_t{1} << (flags & 0x3f);
    return alignment < natural_alignment ? natural_alignment : alignment;
}

// A block that changes its allocator: copied, and then freed where it came from.
void* move_block(void* address, std::size_t old_bytes, void* block, std::size_t bytes) noexcept {
    if (block == nullptr) return nullptr;
    std::memcpy(block, address, old_bytes < bytes ? old_bytes : bytes);
    slow_free(address);
    return block;
}

std::size_t usable_bytes(void* address) noexcept {
    return bootstrap_owns(address) ? bootstrap_usable_bytes(address) : pn_je_malloc_usable_size(address);
}

bool slow_ready_for(std::size_t bytes) noexcept {
    if (!slow_ready()) return false;
    if (bytes >= large_bytes_min) before_large_block(bytes);
    return true;
}

}  // namespace

bool slow_ready() noexcept {
    return thread_may_allocate();
}

void* slow_malloc(std::size_t bytes) noexcept {
    return slow_ready_for(bytes) ? pn_je_malloc(bytes) : from_bootstrap(bytes, natural_alignment);
}

void* slow_calloc(std::size_t count, std::size_t bytes) noexcept {
    std::size_t all = 0;
    if (__builtin_mul_overflow(count, bytes, &all)) {
        errno = ENOMEM;
        return nullptr;
    }
    if (!slow_ready_for(all)) return from_bootstrap(all, natural_alignment);
    // Only the entry's special case comes here from a thread that was ready; for any other it does no harm.
    if (count == 32 && bytes == 16) return pn_je_mallocx(all, plain_memory | MALLOCX_ZERO);
    return pn_je_calloc(count, bytes);
}

void* slow_realloc(void* address, std::size_t bytes) noexcept {
    const bool ready = slow_ready_for(bytes);
    if (ready && !bootstrap_owns(address)) return pn_je_realloc(address, bytes);
    if (address == nullptr) return from_bootstrap(bytes, natural_alignment);
    if (bytes == 0) {
        slow_free(address);
        return nullptr;
    }
    void* block = ready ? pn_je_malloc(bytes) : from_bootstrap(bytes, natural_alignment);
    return move_block(address, usable_bytes(address), block, bytes);
}

void slow_free(void* address) noexcept {
    if (address != nullptr && !bootstrap_owns(address) && slow_ready()) pn_je_free(address);
}

int slow_posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept {
    if (slow_ready_for(bytes)) return pn_je_posix_memalign(out, alignment, bytes);
    if (!is_power_of_two(alignment) || alignment < sizeof(void*)) return EINVAL;
    void* block = bootstrap_allocate(bytes, alignment);
    if (block == nullptr) return ENOMEM;
    *out = block;
    return 0;
}

void* slow_aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
    if (slow_ready_for(bytes)) return pn_je_aligned_alloc(alignment, bytes);
    if (is_power_of_two(alignment)) return from_bootstrap(bytes, alignment);
    errno = EINVAL;
    return nullptr;
}

void* slow_mallocx(std::size_t bytes, int flags) noexcept {
    return slow_ready_for(bytes) ? pn_je_mallocx(bytes, flags)
                                 : bootstrap_allocate(bytes, alignment_of(flags));
}

void* slow_rallocx(void* address, std::size_t bytes, int flags) noexcept {
    const bool ready = slow_ready_for(bytes);
    if (ready && !bootstrap_owns(address)) return pn_je_rallocx(address, bytes, flags);
    void* block = ready ? pn_je_mallocx(bytes, flags) : bootstrap_allocate(bytes, alignment_of(flags));
    return move_block(address, usable_bytes(address), block, bytes);
}

}  // namespace pnode::preload
