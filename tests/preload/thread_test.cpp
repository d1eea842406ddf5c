// Many threads, and libraries that come and go, under the preload library.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
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

// ---- a thread whose stack, and so its thread-local storage above it, is managed memory ----

bool serves_its_own_faults() {
    const char* const engine = std::getenv("PNODE_ENGINE");
    return engine == nullptr || std::string(engine) != "thread";
}

struct ThreadOnTheHeap {
    const FarBlock* far;  // larger than the near limit
    int go;               // it waits for a byte from there
    int told;             // ... after it has told one there
    int* errno_at;
    std::uintptr_t thread_pointer;
    bool intact;
};

void* read_what_is_far(void* argument) {
    auto& self = *static_cast<ThreadOnTheHeap*>(argument);
    char byte = 0;
    self.errno_at = &errno;
    self.thread_pointer = reinterpret_cast<std::uintptr_t>(__builtin_thread_pointer());
    if (write(self.told, &byte, 1) != 1 || read(self.go, &byte, 1) != 1) return nullptr;
    self.intact = self.far->is_intact();
    return nullptr;
}

// Runs it on a stack of so many bytes. All of that is sent away while it waits; how many pages with its errno
// are there then.
std::size_t run_on(std::byte* stack, std::size_t bytes, ThreadOnTheHeap& thread) {
    int go[2];
    int told[2];
    char byte = 0;
    if (pipe(go) != 0 || pipe(told) != 0) std::abort();
    thread.go = go[0];
    thread.told = told[1];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    EXPECT_EQ(pthread_attr_setstack(&attributes, stack, bytes), 0);
    pthread_t id = {};
    EXPECT_EQ(pthread_create(&id, &attributes, read_what_is_far, &thread), 0);
    EXPECT_EQ(read(told[0], &byte, 1), 1);
    // A page that somebody has in hand stays once.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    do {
        EXPECT_EQ(madvise(stack, bytes & ~(preload_test::page_bytes - 1), MADV_PAGEOUT), 0);
    } while (preload_test::resident_pages(stack, bytes / 2) != 0 &&
             std::chrono::steady_clock::now() < deadline);
    const std::size_t there = preload_test::resident_pages(thread.errno_at, sizeof(int));
    EXPECT_EQ(preload_test::resident_pages(stack, bytes / 2), 0u);
    EXPECT_EQ(write(go[1], &byte, 1), 1);
    EXPECT_EQ(pthread_join(id, nullptr), 0);
    pthread_attr_destroy(&attributes);
    for (const int fd : {go[0], go[1], told[0], told[1]}) close(fd);
    return there;
}

// Whoever answers its own faults needs its errno for that. Libc's structure of the thread begins at the
// thread pointer, and the kernel's own part of it is held anyway: so that begins a page here, and errno ends
// one.
TEST(Threads, ThreadLocalStorageStaysNearOnAStackOfTheHeap) {
    const FarBlock far(std::size_t{12} << 20, 1);
    constexpr std::size_t bytes = std::size_t{2} << 20;
    auto* const stack = static_cast<std::byte*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(stack, MAP_FAILED);
    std::memset(stack, 1, bytes);
    std::size_t used = bytes;
    for (int round = 0; round < 2; ++round) {
        ThreadOnTheHeap thread = {&far, -1, -1, nullptr, 0, false};
        const std::size_t there = run_on(stack, used, thread);
        EXPECT_TRUE(thread.intact);
        if (serves_its_own_faults()) {
            EXPECT_EQ(there, 1u);
        }
        if (round == 1) {
            EXPECT_EQ(thread.thread_pointer % preload_test::page_bytes, 0u);
        }
        used -= thread.thread_pointer % preload_test::page_bytes;
    }
    munmap(stack, bytes);
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
