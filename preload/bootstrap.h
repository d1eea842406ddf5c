// The bootstrap arena: memory for whoever allocates where jemalloc cannot be entered: before it is ready, and
// inside the runtime (whose own memory must never be managed). Zero-filled, recognised by address, never
// reused, because what asks for it is little and lasts.
//
// Thread rule: any thread at once; lock-free, so fork finds it whole. May be called from signal handlers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pnode::preload {

// Untouched, it costs address space only. A zstd context takes 1 to 2 MiB of it, a thread less than 1 KiB.
inline constexpr std::size_t bootstrap_bytes = std::size_t{64} << 20;

[[gnu::visibility("hidden")]] alignas(4096) extern unsigned char bootstrap_memory[bootstrap_bytes];

// `alignment` is a power of two. Null when the arena is used up.
void* bootstrap_allocate(std::size_t bytes, std::size_t alignment) noexcept;

// Of a block of this arena: what may be used of it.
std::size_t bootstrap_usable_bytes(const void* address) noexcept;

inline bool bootstrap_owns(const void* address) noexcept {
    return reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(bootstrap_memory) <
           bootstrap_bytes;
}

}  // namespace pnode::preload
