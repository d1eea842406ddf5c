// Many threads, and libraries that come and go, under the preload library.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "far_memory.h"

namespace {

using preload_test::FarBlock;

constexpr int threads = 8;

void run_threads(int count, void (*body)(int)) {
    std::vector<std::thread> running;
    for (int i = 0; i < count; ++i) running.emplace_back(body, i);
    for (std::thread& thread : running) thread.join();
}

std::atomic<int> broken{0};

TEST(Threads, EachKeepsItsBytes) {
    broken = 0;
    run_threads(threads, [](int index) {
        for (int round = 0; round < 6; ++round) {
            const FarBlock large(std::size_t{2} << 20, static_cast<std::uint64_t>(index * 16 + round));
            const FarBlock small(3000, static_cast<std::uint64_t>(index));
            if (!large.is_intact() || !small.is_intact()) ++broken;
        }
    });
    EXPECT_EQ(broken, 0);
}

std::mutex box_lock;
std::vector<FarBlock*> box;

// Each block is made by one thread and freed by another.
TEST(Threads, OneFreesWhatAnotherMade) {
    broken = 0;
    run_threads(threads, [](int index) {
        for (int round = 0; round < 300; ++round) {
            auto* made =
                new FarBlock(static_cast<std::size_t>(1000 + 500 * round), static_cast<std::uint64_t>(index));
            FarBlock* taken = nullptr;
            {
                const std::lock_guard lock(box_lock);
                box.push_back(made);
                if (box.size() > 40) {
                    taken = box.front();
                    box.erase(box.begin());
                }
            }
            if (taken != nullptr && !taken->is_intact()) ++broken;
            delete taken;
        }
    });
    for (FarBlock* block : box) {
        if (!block->is_intact()) ++broken;
        delete block;
    }
    box.clear();
    EXPECT_EQ(broken, 0);
}

TEST(Threads, ShortLivedOnesComeAndGo) {
    broken = 0;
    for (int i = 0; i < 1000; ++i) {
        std::thread([] {
            std::string text(500, 'x');
            text += "y";
            if (text.size() != 501) ++broken;
        }).join();
    }
    EXPECT_EQ(broken, 0);
}

// More keys than a thread's first level holds: libc allocates the second one.
TEST(Threads, ManyThreadSpecificValues) {
    static std::array<pthread_key_t, 100> keys;
    for (pthread_key_t& key : keys)
        ASSERT_EQ(pthread_key_create(&key, [](void* value) { std::free(value); }), 0);
    broken = 0;
    run_threads(threads, [](int) {
        for (const pthread_key_t key : keys) {
            if (pthread_setspecific(key, std::malloc(100)) != 0) ++broken;
        }
        for (const pthread_key_t key : keys) {
            if (pthread_getspecific(key) == nullptr) ++broken;
        }
    });
    for (const pthread_key_t key : keys) pthread_key_delete(key);
    EXPECT_EQ(broken, 0);
}

TEST(Libraries, MemoryCrossesTheirBorder) {
    const FarBlock before(std::size_t{12} << 20, 1);
    for (int round = 0; round < 5; ++round) {
        void* library = dlopen(PLUGIN, RTLD_NOW);
        ASSERT_NE(library, nullptr) << dlerror();
        const auto copy = reinterpret_cast<char* (*)(const char*)>(dlsym(library, "plugin_copy"));
        const auto take = reinterpret_cast<void (*)(char*)>(dlsym(library, "plugin_take"));
        ASSERT_NE(copy, nullptr);
        ASSERT_NE(take, nullptr);
        const std::string text(10000, static_cast<char>('a' + round));
        char* from_library = copy(text.c_str());
        EXPECT_EQ(from_library, text);
        std::free(from_library);
        char* from_here = static_cast<char*>(std::malloc(100));
        take(from_here);
        EXPECT_EQ(dlclose(library), 0);
    }
    EXPECT_EQ(dlopen("/nowhere/libnothing.so", RTLD_NOW), nullptr);
    EXPECT_NE(dlerror(), nullptr);
    EXPECT_TRUE(before.is_intact());
}

}  // namespace
