// A program that brings a compressor and a hash of its own under the names that others know, as one does that
// links another version of a library statically and exports it: the loader gives its functions to everybody
// who asks by name. What goes far must not be made by them.
#include <gtest/gtest.h>

#include <cstdlib>

#include "far_memory.h"

#define NAMED_LIKE_OURS(name)                                       \
    extern "C" __attribute__((visibility("default"))) void name() { \
        std::abort();                                               \
    }

NAMED_LIKE_OURS(ZSTD_compress2)
NAMED_LIKE_OURS(ZSTD_decompressDCtx)
NAMED_LIKE_OURS(ZSTD_initStaticCCtx)
NAMED_LIKE_OURS(ZSTD_estimateCCtxSize_usingCParams)
NAMED_LIKE_OURS(ZSTD_isError)
NAMED_LIKE_OURS(LZ4_compress_fast_extState)
NAMED_LIKE_OURS(LZ4_decompress_safe)
NAMED_LIKE_OURS(XXH3_generateSecret)
NAMED_LIKE_OURS(XXH3_64bits)
NAMED_LIKE_OURS(XXH3_128bits_withSecret)
NAMED_LIKE_OURS(XXH3_128bits_withSecret_dispatch)
NAMED_LIKE_OURS(libdeflate_alloc_decompressor)
NAMED_LIKE_OURS(libdeflate_deflate_decompress_ex)

namespace {

using namespace preload_test;

TEST(OwnCodecs, AreTheProgramsAlone) {
    FarBlock block(std::size_t{24} << 20, 1);
    ASSERT_TRUE(becomes_mostly_far(block));
    EXPECT_TRUE(block.is_intact());
}

}  // namespace
