#include "preload/bootstrap.h"

#include <atomic>

namespace pnode::preload {

alignas(4096) constinit unsigned char bootstrap_memory[bootstrap_bytes] = {};

namespace {

constexpr std::size_t header_bytes = 16;  // holds the size, and keeps blocks aligned as malloc's are

// Bytes of the arena that are given out. Relaxed: it hands out disjoint ranges and publishes nothing.
constinit std::atomic<std::size_t> used_bytes{0};

}  // namespace

void* bootstrap_allocate(std::size_t bytes, std::size_t alignment) noexcept {
    if (alignment < header_bytes) alignment = header_bytes;
    if (bytes > bootstrap_bytes || alignment > bootstrap_bytes) return nullptr;
    const auto base = reinterpret_cast<std::uintptr_t>(bootstrap_memory);
    std::size_t used = used_bytes.load(std::memory_order_relaxed);
    std::uintptr_t start = 0;
    std::size_t end = 0;
    do {
        start = (base + used + header_bytes + alignment - 1) & ~(alignment - 1);
        end = start - base + ((bytes + header_bytes - 1) & ~(header_bytes - 1));
        if (end > bootstrap_bytes) return nullptr;
    } while (!used_bytes.compare_exchange_weak(used, end, std::memory_order_relaxed));
    auto* block = reinterpret_cast<unsigned char*>(start);
    *reinterpret_cast<std::size_t*>(block - header_bytes) = bytes;
    return block;
}

std::size_t bootstrap_usable_bytes(const void* address) noexcept {
    return *reinterpret_cast<const std::size_t*>(static_cast<const unsigned char*>(address) - header_bytes);
}

}  // namespace pnode::preload
