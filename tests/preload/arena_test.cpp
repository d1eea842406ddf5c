// Which arena of the heap a thread has, and how long arenas keep pages that nobody uses, under the preload
// library.
#include <gtest/gtest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <string>
#include <thread>
#include <vector>

extern "C" int mallctl(const char* name, void* old_value, size_t* old_bytes, void* new_value,
                       size_t new_bytes) noexcept;
#pragma weak mallctl

namespace {

// Of the calling thread, which has one from its first allocation on.
unsigned own_arena() {
    std::free(std::malloc(100));
    unsigned arena = 0;
    std::size_t bytes = sizeof(arena);
    EXPECT_EQ(mallctl("thread.arena", &arena, &bytes, nullptr, 0), 0);
    return arena;
}

unsigned arena_of_a_new_thread() {
    unsigned arena = 0;
    std::thread([&] { arena = own_arena(); }).join();
    return arena;
}

ssize_t decay_ms() {
    ssize_t decay = 0;
    std::size_t bytes = sizeof(decay);
    const std::string name = "arena." + std::to_string(own_arena()) + ".dirty_decay_ms";
    EXPECT_EQ(mallctl(name.c_str(), &decay, &bytes, nullptr, 0), 0);
    return decay;
}

constexpr std::size_t block_bytes = 14000;

std::vector<void*> touched_blocks(std::size_t bytes) {
    std::vector<void*> blocks;
    for (std::size_t made = 0; made < bytes; made += block_bytes) {
        blocks.push_back(std::malloc(block_bytes));
        std::memset(blocks.back(), static_cast<int>(made / block_bytes), block_bytes);
    }
    return blocks;
}

void free_all(const std::vector<void*>& blocks) {
    for (void* const block : blocks) std::free(block);
}

// A program that goes on, until it is so or half a minute has passed. jemalloc looks at the clock at one
// call in a thousand that reaches an arena.
bool comes_to_be(ssize_t decay) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (decay_ms() != decay && std::chrono::steady_clock::now() < end)
        free_all(touched_blocks(std::size_t{4} << 20));
    return decay_ms() == decay;
}

constexpr ssize_t jemallocs_own_ms = 10'000, short_ms = 1'000, users_ms = 500;

TEST(Arena, OfAThreadThatEndedIsTheNextOnes) {
    const unsigned first = arena_of_a_new_thread();
    for (int i = 0; i < 5; ++i) EXPECT_EQ(arena_of_a_new_thread(), first);
}

// The parent's other threads, of which both have some, are not there. With one processor there is one arena.
TEST(Arena, InAForkedChildIsNobodyElses) {
    const unsigned own = own_arena(), others = arena_of_a_new_thread();
    constexpr int count = 5;
    std::latch bound(count + 1), end(1);
    std::vector<std::thread> waiting;
    for (int i = 0; i < count; ++i) {
        waiting.emplace_back([&] {
            own_arena();
            bound.count_down();
            end.wait();
        });
    }
    bound.arrive_and_wait();
    const pid_t child = fork();
    if (child == 0) _exit(own_arena() == own && arena_of_a_new_thread() == others ? 0 : 1);
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    end.count_down();
    for (std::thread& thread : waiting) thread.join();
}

TEST(Decay, IsJemallocsOwnWhileThereIsRoom) {
    EXPECT_EQ(decay_ms(), jemallocs_own_ms);
    free_all(touched_blocks(std::size_t{16} << 20));
    EXPECT_EQ(decay_ms(), jemallocs_own_ms);
}

TEST(Decay, IsShortWhileNearIsScarce) {
    ASSERT_EQ(decay_ms(), jemallocs_own_ms);
    const std::vector<void*> blocks = touched_blocks(std::size_t{96} << 20);
    EXPECT_TRUE(comes_to_be(short_ms));
    std::thread([] { EXPECT_EQ(decay_ms(), short_ms); }).join();  // and so is a new arena's
    free_all(blocks);
    EXPECT_TRUE(comes_to_be(jemallocs_own_ms));
}

TEST(Decay, OfTheUsersIsLeftAlone) {
    const std::vector<void*> blocks = touched_blocks(std::size_t{96} << 20);
    free_all(touched_blocks(std::size_t{4} << 20));
    EXPECT_EQ(decay_ms(), users_ms);
    free_all(blocks);
}

}  // namespace
