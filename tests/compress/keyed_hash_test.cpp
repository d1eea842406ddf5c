// The hash is the same number by whatever vectors: which ones a machine has is no part of what a blob is.
#include "compress/keyed_hash.h"

#include "tests/compress/blocks.h"

namespace pnode::compress::testing {
namespace {

std::vector<KeyedHashFunction> those_that_run_here() {
    std::vector<KeyedHashFunction> functions = {keyed_hash_generic, widest_keyed_hash()};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) functions.push_back(keyed_hash_avx2);
    if (__builtin_cpu_supports("avx512f")) functions.push_back(keyed_hash_avx512);
#endif
    return functions;
}

TEST(KeyedHash, IsTheSameByAllVectors) {
    Random random(test_seed());
    const Block secret = make_block(Pattern::random, 192, random);
    const Block other_secret = make_block(Pattern::random, 192, random);
    for (std::size_t bytes = 0; bytes <= block_bytes_max; bytes += bytes < 1100 ? 1 : 4096 + bytes % 97) {
        const Block block = make_block(Pattern::random, (bytes + 8) / 8 * 8, random);  // of whole words
        const KeyedHash expected = keyed_hash_generic(block.data(), bytes, secret.data(), secret.size());
        for (const KeyedHashFunction function : those_that_run_here()) {
            const KeyedHash hash = function(block.data(), bytes, secret.data(), secret.size());
            EXPECT_EQ(hash.low, expected.low) << bytes;
            EXPECT_EQ(hash.high, expected.high) << bytes;
        }
        EXPECT_NE(keyed_hash_generic(block.data(), bytes, other_secret.data(), other_secret.size()).low,
                  expected.low);
    }
}

}  // namespace
}  // namespace pnode::compress::testing
