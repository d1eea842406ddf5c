// A program with an allocator of its own, under names of its own, as upstream builds of Redis have: what it
// holds is managed through the mappings that this allocator makes. Here it is the very jemalloc that the
// library embeds.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "far_memory.h"

extern "C" {
void* pn_je_malloc(std::size_t bytes);
void* pn_je_realloc(void* block, std::size_t bytes);
void pn_je_free(void* block);
int pn_je_mallctl(const char* name, void* old, std::size_t* old_bytes, void* value, std::size_t value_bytes);
}

namespace {

using namespace preload_test;

constexpr std::size_t blocks_max = 6000;
constexpr std::size_t block_words_max = 1200;
constexpr int steps = 40000;

// A block of words that its number and its size tell.
class Block {
  public:
    Block() = default;
    ~Block() { pn_je_free(words_); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    bool is_intact() const { return is_intact(count_); }
    // Keeps what it held, as far as it goes.
    bool resize(std::size_t words, std::uint64_t seed) {
        auto* const moved = static_cast<std::uint64_t*>(pn_je_realloc(words_, words * sizeof(std::uint64_t)));
        if (moved == nullptr) return false;
        words_ = moved;
        const bool kept = is_intact(words < count_ ? words : count_);
        count_ = words;
        seed_ = seed;
        for (std::size_t i = 0; i < count_; ++i) words_[i] = expected(i);
        return kept;
    }
    std::size_t bytes() const { return count_ * sizeof(std::uint64_t); }

  private:
    std::uint64_t expected(std::size_t i) const { return (seed_ << 20) + i / 4; }
    bool is_intact(std::size_t count) const {
        for (std::size_t i = 0; i < count; ++i) {
            if (words_[i] != expected(i)) return false;
        }
        return true;
    }

    std::uint64_t* words_ = nullptr;
    std::size_t count_ = 0;
    std::uint64_t seed_ = 0;
};

bool are_all_intact(const std::vector<Block>& blocks) {
    for (const Block& block : blocks) {
        if (!block.is_intact()) return false;
    }
    return true;
}

bool a_child_sees(const std::vector<Block>& blocks) {
    const pid_t child = fork();
    if (child == 0) _exit(are_all_intact(blocks) ? 0 : 1);
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

// Of everything mapped here, how much the kernel has in place: the near limit holds for this allocator too.
std::size_t anonymous_bytes() {
    std::FILE* const status = std::fopen("/proc/self/status", "r");
    char line[256];
    std::size_t kib = 0;
    while (status != nullptr && std::fgets(line, sizeof(line), status) != nullptr)
        if (std::sscanf(line, "RssAnon: %zu", &kib) == 1) break;
    if (status != nullptr) std::fclose(status);
    return kib << 10;
}

TEST(OwnAllocator, HoldsWhatItWasGivenMostlyFar) {
    std::vector<Block> blocks(blocks_max);
    std::mt19937_64 random(3);
    for (int step = 0; step < steps; ++step) {
        Block& block = blocks[random() % blocks_max];
        ASSERT_TRUE(block.is_intact()) << step;
        ASSERT_TRUE(block.resize(1 + random() % block_words_max, random() % 4096)) << step;
        if (step % 15000 == 14999) {
            ASSERT_TRUE(a_child_sees(blocks)) << step;
        }
    }
    EXPECT_TRUE(are_all_intact(blocks));
    std::size_t held = 0;
    for (const Block& block : blocks) held += block.bytes();
    EXPECT_LT(anonymous_bytes(), held * 3 / 4) << "of " << held;
    // Gives its free pages back, and is given them again.
    EXPECT_EQ(pn_je_mallctl("arena.4096.purge", nullptr, nullptr, nullptr, 0), 0);
    EXPECT_TRUE(are_all_intact(blocks));
}

TEST(OwnAllocator, ServesManyThreads) {
    std::vector<std::thread> threads;
    std::atomic<int> broken{0};
    for (unsigned seed = 0; seed < 4; ++seed) {
        threads.emplace_back([seed, &broken] {
            std::mt19937_64 random(seed);
            std::vector<Block> blocks(500);
            for (int step = 0; step < 6000; ++step) {
                Block& block = blocks[random() % blocks.size()];
                if (!block.is_intact() || !block.resize(1 + random() % block_words_max, random() % 4096))
                    ++broken;
            }
            if (!are_all_intact(blocks)) ++broken;
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(broken, 0);
}

}  // namespace
