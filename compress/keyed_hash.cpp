#include "compress/keyed_hash.h"

namespace pnode::compress {

KeyedHashFunction widest_keyed_hash() noexcept {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return keyed_hash_avx512;
    if (__builtin_cpu_supports("avx2")) return keyed_hash_avx2;
#endif
    return keyed_hash_generic;
}

}  // namespace pnode::compress
