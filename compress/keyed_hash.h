// xxh3 of 128 bits with a secret, by the widest vectors of this CPU: six times as fast as by the narrowest,
// and the same number. One file for each width, for each is compiled for its own instructions; they include
// nothing whose inline functions the linker might then choose for everybody.
//
// From xxhash's header and not from its shared library: the loader would take a function of that name from
// the program itself, if it exports one, whatever its version.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pnode::compress {

struct KeyedHash {
    std::uint64_t low, high;
};
// Any thread, any signal handler. `secret_bytes` at least 136.
using KeyedHashFunction = KeyedHash (*)(const void* contents, std::size_t bytes, const void* secret,
                                        std::size_t secret_bytes) noexcept;

KeyedHash keyed_hash_generic(const void* contents, std::size_t bytes, const void* secret,
                             std::size_t secret_bytes) noexcept;
KeyedHash keyed_hash_avx2(const void* contents, std::size_t bytes, const void* secret,
                          std::size_t secret_bytes) noexcept;
KeyedHash keyed_hash_avx512(const void* contents, std::size_t bytes, const void* secret,
                            std::size_t secret_bytes) noexcept;

// Asks the CPU for its features, which is slow on a virtual machine: not in a fault.
KeyedHashFunction widest_keyed_hash() noexcept;

}  // namespace pnode::compress
