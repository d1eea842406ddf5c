// What malloc and its family promise, under the preload library.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "far_memory.h"

extern "C" {
void* mallocx(size_t bytes, int flags) noexcept;
size_t sallocx(const void* address, int flags) noexcept;
void sdallocx(void* address, size_t bytes, int flags) noexcept;
int mallctl(const char* name, void* old_value, size_t* old_bytes, void* new_value, size_t new_bytes) noexcept;
}
#pragma weak mallocx
#pragma weak sallocx
#pragma weak sdallocx
#pragma weak mallctl

namespace {

using preload_test::FarBlock;

constexpr std::size_t too_large = std::numeric_limits<std::size_t>::max() / 2 + 1;
volatile std::size_t hidden_size;  // keeps the compiler from judging sizes it should not know

std::size_t hidden(std::size_t bytes) {
    hidden_size = bytes;
    return hidden_size;
}

bool is_aligned(const void* address, std::size_t alignment) {
    return reinterpret_cast<std::uintptr_t>(address) % alignment == 0;
}

bool all_zero(const void* address, std::size_t bytes) {
    const auto* at = static_cast<const unsigned char*>(address);
    for (std::size_t i = 0; i < bytes; ++i) {
        if (at[i] != 0) return false;
    }
    return true;
}

TEST(Malloc, IsThePreloadedOne) {
    ASSERT_NE(mallctl, nullptr);
    bool automatic = false;
    std::size_t bytes = sizeof(automatic);
    EXPECT_EQ(mallctl("config.stats", &automatic, &bytes, nullptr, 0), 0);
}

TEST(Malloc, ZeroBytesIsABlockOfItsOwn) {
    void* a = std::malloc(hidden(0));
    void* b = std::malloc(hidden(0));
    EXPECT_NE(a, nullptr);
    EXPECT_NE(a, b);
    std::free(a);
    std::free(b);
    std::free(nullptr);
}

TEST(Malloc, TooLargeIsNoMemory) {
    errno = 0;
    EXPECT_EQ(std::malloc(hidden(too_large)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
}

TEST(Malloc, CallocOverflowIsNoMemory) {
    errno = 0;
    EXPECT_EQ(std::calloc(hidden(too_large), hidden(3)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    void* block = std::malloc(64);
    EXPECT_EQ(reallocarray(block, hidden(too_large), hidden(3)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    std::free(block);  // still there
}

TEST(Malloc, CallocIsZeroAfterReuse) {
    for (std::size_t bytes :
         {std::size_t{24}, std::size_t{512}, std::size_t{5000}, std::size_t{70000}, std::size_t{3} << 20}) {
        for (int round = 0; round < 8; ++round) {
            auto* block = static_cast<unsigned char*>(std::calloc(bytes, 1));
            ASSERT_NE(block, nullptr);
            ASSERT_TRUE(all_zero(block, bytes)) << bytes;
            std::memset(block, 0xa5, bytes);
            std::free(block);
        }
    }
}

TEST(Malloc, CallocIsZeroAfterPurge) {
    constexpr std::size_t bytes = std::size_t{1} << 20;
    for (int round = 0; round < 4; ++round) {
        std::vector<void*> blocks;
        for (int i = 0; i < 12; ++i) blocks.push_back(std::calloc(1, bytes));
        for (void* block : blocks) {
            ASSERT_TRUE(all_zero(block, bytes));
            std::memset(block, 0x5a, bytes);
        }
        for (void* block : blocks) std::free(block);
        ASSERT_EQ(mallctl("arena.4096.purge", nullptr, nullptr, nullptr, 0), 0);  // 4096: all arenas
    }
}

// libc's own request, which is served apart.
TEST(Malloc, ThirtyTwoTimesSixteenIsACallocLikeAnyOther) {
    for (int round = 0; round < 4; ++round) {
        void* block = std::calloc(hidden(32), hidden(16));
        ASSERT_NE(block, nullptr);
        EXPECT_TRUE(all_zero(block, 512));
        std::memset(block, 0xff, 512);
        block = std::realloc(block, 2048);
        EXPECT_EQ(static_cast<unsigned char*>(block)[511], 0xff);
        std::free(block);
    }
}

TEST(Malloc, ReallocKeepsContents) {
    std::string text = "the first bytes stay";
    auto* block = static_cast<char*>(std::malloc(text.size() + 1));
    std::memcpy(block, text.c_str(), text.size() + 1);
    for (std::size_t bytes :
         {std::size_t{100}, std::size_t{5000}, std::size_t{200000}, std::size_t{9} << 20, std::size_t{300}}) {
        block = static_cast<char*>(std::realloc(block, bytes));
        ASSERT_NE(block, nullptr);
        ASSERT_EQ(block, text);
    }
    errno = 0;
    EXPECT_EQ(std::realloc(block, hidden(too_large)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    EXPECT_EQ(block, text);
    std::free(block);
}

TEST(Malloc, ReallocOfNothingIsMalloc) {
    void* block = std::realloc(nullptr, 100);
    ASSERT_NE(block, nullptr);
    EXPECT_GE(malloc_usable_size(block), 100U);
    std::free(block);
}

TEST(Malloc, UsableSizeMayBeUsed) {
    EXPECT_EQ(malloc_usable_size(nullptr), 0U);
    for (std::size_t bytes = 1; bytes < 100000; bytes = bytes * 3 + 1) {
        void* block = std::malloc(bytes);
        const std::size_t usable = malloc_usable_size(block);
        ASSERT_GE(usable, bytes);
        std::memset(block, 0x11, usable);
        std::free(block);
    }
}

TEST(Malloc, AlignedFamilyAligns) {
    for (std::size_t alignment = 16; alignment <= (std::size_t{4} << 20); alignment *= 2) {
        void* block = nullptr;
        ASSERT_EQ(posix_memalign(&block, alignment, 1000), 0);
        EXPECT_TRUE(is_aligned(block, alignment));
        std::free(block);
        block = aligned_alloc(alignment, alignment);
        EXPECT_TRUE(is_aligned(block, alignment));
        std::free(block);
        block = memalign(alignment, 10);
        EXPECT_TRUE(is_aligned(block, alignment));
        std::free(block);
    }
    void* block = valloc(100);
    EXPECT_TRUE(is_aligned(block, 4096));
    std::free(block);
    block = pvalloc(4097);
    EXPECT_TRUE(is_aligned(block, 4096));
    EXPECT_GE(malloc_usable_size(block), 8192U);
    std::free(block);
}

TEST(Malloc, BadAlignmentIsRefused) {
    void* block = &block;
    for (std::size_t alignment :
         {std::size_t{0}, std::size_t{1}, std::size_t{4}, std::size_t{24}, std::size_t{4097}}) {
        errno = 7;
        EXPECT_EQ(posix_memalign(&block, hidden(alignment), 100), EINVAL) << alignment;
        EXPECT_EQ(errno, 7);
        EXPECT_EQ(block, static_cast<void*>(&block));
    }
    EXPECT_EQ(posix_memalign(&block, 64, hidden(too_large)), ENOMEM);
    errno = 0;
    EXPECT_EQ(aligned_alloc(hidden(24), 100), nullptr);
    EXPECT_EQ(errno, EINVAL);
    errno = 0;
    EXPECT_EQ(pvalloc(hidden(std::numeric_limits<std::size_t>::max() - 10)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
}

TEST(Malloc, FreeKeepsErrno) {
    std::vector<void*> blocks;
    for (int i = 0; i < 200; ++i) blocks.push_back(std::malloc(i < 100 ? 100 : 3 << 20));
    errno = 42;
    for (void* block : blocks) std::free(block);
    EXPECT_EQ(errno, 42);
}

TEST(Malloc, SuccessKeepsErrno) {
    errno = 42;
    void* small = std::malloc(10);
    void* large = std::malloc(20 << 20);
    EXPECT_EQ(errno, 42);
    std::free(small);
    std::free(large);
}

TEST(Operators, EveryFormAllocatesAndFrees) {
    struct alignas(256) Wide {
        char bytes[300];
    };
    auto* one = new std::string(1000, 'x');
    EXPECT_EQ(one->size(), 1000U);
    delete one;
    auto* many = new int[5000]();
    EXPECT_TRUE(all_zero(many, 5000 * sizeof(int)));
    delete[] many;
    auto* wide = new Wide;
    EXPECT_TRUE(is_aligned(wide, 256));
    delete wide;
    auto* wides = new (std::nothrow) Wide[3];
    EXPECT_TRUE(is_aligned(wides, 256));
    delete[] wides;
    void* raw = ::operator new (77, std::align_val_t{4096}, std::nothrow);
    EXPECT_TRUE(is_aligned(raw, 4096));
    ::operator delete (raw, std::size_t{77}, std::align_val_t{4096});
}

TEST(Operators, WithoutMemoryTheProgramsOwnExceptionIsThrown) {
    EXPECT_THROW(static_cast<void>(::operator new(hidden(too_large))), std::bad_alloc);
    EXPECT_THROW(static_cast<void>(::operator new[](hidden(too_large), std::align_val_t{64})),
                 std::bad_alloc);
    EXPECT_EQ(::operator new(hidden(too_large), std::nothrow), nullptr);
    EXPECT_EQ(std::uncaught_exceptions(), 0);
}

int handler_calls = 0;

TEST(Operators, TheProgramsNewHandlerIsAsked) {
    handler_calls = 0;
    std::set_new_handler([] {
        if (++handler_calls == 3) std::set_new_handler(nullptr);
    });
    EXPECT_THROW(static_cast<void>(::operator new(hidden(too_large))), std::bad_alloc);
    EXPECT_EQ(handler_calls, 3);
    EXPECT_EQ(std::get_new_handler(), nullptr);
}

TEST(Jemalloc, ItsOwnInterfaceIsTheSameAllocator) {
    ASSERT_NE(mallocx, nullptr);
    void* block = mallocx(1000, 12);  // MALLOCX_LG_ALIGN(12)
    ASSERT_TRUE(is_aligned(block, 4096));
    EXPECT_EQ(sallocx(block, 0), malloc_usable_size(block));
    sdallocx(block, 1000, 12);
    block = std::malloc(500);
    sdallocx(block, 500, 0);
    std::size_t page = 0;
    std::size_t bytes = sizeof(page);
    ASSERT_EQ(mallctl("arenas.page", &page, &bytes, nullptr, 0), 0);
    EXPECT_EQ(page, 4096U);
}

// More than the near limit of every variant; a shadow model says what each block holds.
TEST(Malloc, RandomBlocksKeepTheirBytes) {
    const char* text = std::getenv("PNODE_SEED");
    const std::uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
    SCOPED_TRACE("PNODE_SEED=" + std::to_string(seed));
    struct Block {
        unsigned char* data = nullptr;
        std::size_t bytes = 0;
        unsigned char mark = 0;
        bool is_intact() const {
            for (std::size_t i = 0; i < bytes; ++i) {
                if (data[i] != static_cast<unsigned char>(mark + i / 16)) return false;
            }
            return true;
        }
        void fill(unsigned char with, std::size_t from) {
            mark = with;
            for (std::size_t i = from; i < bytes; ++i) data[i] = static_cast<unsigned char>(mark + i / 16);
        }
    };
    std::mt19937_64 random(seed);
    std::vector<Block> blocks(600);
    const auto any_size = [&] { return std::size_t{1} << (random() % 18) | (random() % 3000); };
    for (int step = 0; step < 12000; ++step) {
        Block& block = blocks[random() % blocks.size()];
        ASSERT_TRUE(block.is_intact()) << "step " << step;
        if (block.data != nullptr && random() % 4 == 0) {
            const std::size_t old_bytes = block.bytes;
            block.bytes = any_size();
            block.data = static_cast<unsigned char*>(std::realloc(block.data, block.bytes));
            block.fill(block.mark, std::min(old_bytes, block.bytes));
        } else {
            std::free(block.data);
            block.bytes = any_size();
            block.data = static_cast<unsigned char*>(std::malloc(block.bytes));
            block.fill(static_cast<unsigned char>(random()), 0);
        }
        ASSERT_NE(block.data, nullptr);
    }
    for (Block& block : blocks) {
        EXPECT_TRUE(block.is_intact());
        std::free(block.data);
    }
}

TEST(Malloc, FourTimesTheNearLimitKeepsItsBytes) {
    std::vector<std::unique_ptr<FarBlock>> blocks;
    for (std::uint64_t i = 0; i < 32; ++i)
        blocks.push_back(std::make_unique<FarBlock>(std::size_t{1} << 20, i));
    for (const auto& block : blocks) EXPECT_TRUE(block->is_intact());
}

}  // namespace
