// The heap becomes active in the middle of the program's own calls, and starts threads then. libc takes a
// lock of the loader's for that, which a thread in dlopen() may hold that waits for memory; so while a thread
// is started every other thread must get memory, or both wait for ever.
//
// The program stands where libc's pthread_create() is, and has others allocate before it lets the library's
// call go on. A process becomes active once: one test each.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>
#include <vector>

#include "far_memory.h"

namespace {

using preload_test::FarBlock;

constexpr std::size_t large_bytes = std::size_t{80} << 20;  // past the activation size, and the near limit
constexpr int patience_seconds = 30;

enum class Wanted { memory, fork };

// A thread that waits to be told to allocate, or to fork.
struct Helper {
    sem_t told;
    sem_t done;
    std::thread thread;
    Wanted wanted = Wanted::memory;
};

std::vector<Helper*> helpers;
std::atomic<pid_t> armed{0};              // the process whose threads are watched: a child has no helpers
std::atomic<bool> fork_is_wanted{false};  // of the last helper, which does nothing else
std::atomic<bool> fork_has_begun{false};
std::atomic<int> started{0};  // threads of the library's, while armed
std::atomic<int> starved{0};  // helpers that got no memory meanwhile

// Whatever an arena has ready, this makes it ask for more.
void allocate_much() {
    std::vector<void*> blocks;
    for (int i = 0; i < 400; ++i) blocks.push_back(std::malloc(14000));
    for (void* block : blocks) std::memset(block, 1, 14000);
    void* const large = std::calloc(1, std::size_t{5} << 20);
    if (large == nullptr) std::abort();
    for (void* block : blocks) std::free(block);
    std::free(large);
}

void fork_once() {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    int status = -1;
    if (waitpid(child, &status, 0) != child || status != 0) ++starved;
}

void serve(Helper& helper) {
    std::free(std::malloc(100));  // it has its arena from here on
    sem_post(&helper.done);
    for (;;) {
        while (sem_wait(&helper.told) != 0) {
        }
        helper.wanted == Wanted::fork ? fork_once() : allocate_much();
        sem_post(&helper.done);
    }
}

// As many that every arena has one, and the one that starts a thread shares its own.
void make_helpers() {
    cpu_set_t processors;
    sched_getaffinity(0, sizeof processors, &processors);
    for (int i = 0; i < CPU_COUNT(&processors) + 1; ++i) {
        auto* const helper = new Helper;
        sem_init(&helper->told, 0, 0);
        sem_init(&helper->done, 0, 0);
        helper->thread = std::thread(serve, std::ref(*helper));
        helper->thread.detach();
        sem_wait(&helper->done);
        helpers.push_back(helper);
    }
    pthread_atfork([] { fork_has_begun = true; }, nullptr, nullptr);
}

timespec deadline() {
    timespec at{};
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += patience_seconds;
    return at;
}

bool is_done(Helper& helper) {
    const timespec until = deadline();
    while (sem_timedwait(&helper.done, &until) != 0) {
        if (errno != EINTR) return false;
    }
    return true;
}

// A fork waits until the heap is active; what it holds meanwhile nobody may need.
void begin_fork(Helper& helper) {
    helper.wanted = Wanted::fork;
    sem_post(&helper.told);
    while (!fork_has_begun) sched_yield();
    for (int i = 0; i < 1000; ++i) sched_yield();  // further into it; too few would only test less
}

void have_others_allocate() {
    if (fork_is_wanted && !fork_has_begun) begin_fork(*helpers.back());
    for (std::size_t i = 0; i + (fork_is_wanted ? 1 : 0) < helpers.size(); ++i) {
        sem_post(&helpers[i]->told);
        if (!is_done(*helpers[i])) ++starved;
    }
}

// Nobody was starved, and what is larger than the limit went far.
void expect_active(FarBlock& block) {
    armed = 0;
    EXPECT_GT(started, 0) << "nothing became active";
    EXPECT_EQ(starved, 0) << "a thread waited for memory while another was started";
    EXPECT_TRUE(preload_test::becomes_mostly_far(block));
    EXPECT_TRUE(block.is_intact());
}

TEST(Activation, BySmallBlocks) {
    make_helpers();
    armed = getpid();
    std::vector<void*> blocks;
    for (int i = 0; i < 3000 && started == 0; ++i) blocks.push_back(std::malloc(10000));
    FarBlock block(large_bytes, 1);
    expect_active(block);
    for (void* each : blocks) std::free(each);
}

TEST(Activation, ByALargeBlock) {
    make_helpers();
    armed = getpid();
    FarBlock block(large_bytes, 2);
    // It was watched from the first byte on: pages left while it was written.
    EXPECT_LT(preload_test::resident_pages(block.data(), block.bytes()),
              block.bytes() / preload_test::page_bytes);
    expect_active(block);
}

TEST(Activation, ByAMapping) {
    make_helpers();
    armed = getpid();
    void* const mapping =
        mmap(nullptr, large_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(mapping, MAP_FAILED);
    std::memset(mapping, 1, large_bytes);
    FarBlock block(large_bytes, 3);
    expect_active(block);
    munmap(mapping, large_bytes);
}

TEST(Activation, WhileAnotherThreadForks) {
    make_helpers();
    fork_is_wanted = true;
    armed = getpid();
    FarBlock block(large_bytes, 4);
    expect_active(block);
    EXPECT_TRUE(is_done(*helpers.back())) << "the fork did not end";
    EXPECT_EQ(starved, 0);
}

}  // namespace

// In libc's place, for this program and for the library. The library's threads start with their own thread
// blocked from signals and from the heap, so nothing is allocated here.
extern "C" [[gnu::visibility("default")]] int pthread_create(pthread_t* thread,
                                                             const pthread_attr_t* attributes,
                                                             void* (*main)(void*), void* argument) noexcept {
    using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
    static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
    if (armed == getpid()) {
        ++started;
        have_others_allocate();
    }
    return create(thread, attributes, main, argument);
}
