#define XXH_INLINE_ALL
#include <xxhash.h>

#include "compress/keyed_hash.h"

namespace pnode::compress {

KeyedHash keyed_hash_avx2(const void* contents, std::size_t bytes, const void* secret,
                          std::size_t secret_bytes) noexcept {
    const XXH128_hash_t hash = XXH3_128bits_withSecret(contents, bytes, secret, secret_bytes);
    return {hash.low64, hash.high64};
}

}  // namespace pnode::compress
