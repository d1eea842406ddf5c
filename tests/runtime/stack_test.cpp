// A thread whose stack is managed memory, with the inline engine: the kernel writes below the stack pointer
// when it delivers a signal of the program's, and what it finds absent or write-protected there ends the
// process.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cerrno>

#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

constexpr std::uint64_t stack_pages = 256;
// Of the stack, below the stack pointer: where no page may be write-protected, and what the thread uses
// itself meanwhile, which stays near here.
constexpr std::uint64_t window_pages = 16;
constexpr std::uint64_t used_pages = 8;
constexpr std::uint64_t elsewhere_pages = 100;

// May the kernel write to the page? Zeros, of which its first byte is one.
bool kernel_can_write(int zeros, std::uint8_t* page) {
    const ssize_t got = read(zeros, page, 1);
    return got == 1 || errno != EFAULT;
}

class InlineStack : public HeapTest {
  protected:
    void SetUp() override {
        HeapTest::SetUp();
        options_.near_bytes_max = 64 * mib;  // never reached: but kept blobs have their share of it
        options_.engine = PN_ENGINE_INLINE;
        open_heap();
        stack_ = alloc_filled(stack_pages, Kind::text, 1);
        zeros_ = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        ASSERT_EQ(pipe2(ends_, O_CLOEXEC), 0);
    }
    void TearDown() override {
        for (const int fd : {zeros_, ends_[0], ends_[1]}) close(fd);
        HeapTest::TearDown();
    }

    // The thread says where it stands, waits, and then reads pages in order, from before its window to what
    // it uses. Faults are answered on another stack: the runtime brings nothing ahead near the one it runs
    // on.
    static void* read_towards_the_stack_pointer(void* argument) {
        auto& self = *static_cast<InlineStack*>(argument);
        const stack_t alternate = {self.alternate_.data(), 0, self.alternate_.size()};
        stack_t former = {};  // a sanitizer's, which it takes back itself
        if (sigaltstack(&alternate, &former) != 0) return nullptr;
        std::uint64_t stack_pointer = 0;
        asm volatile("mov %%rsp, %0" : "=r"(stack_pointer));
        std::uint8_t* const window =
            self.stack_ +
            ((stack_pointer - 1 - reinterpret_cast<std::uint64_t>(self.stack_)) / page_bytes - window_pages) *
                page_bytes;
        self.window_.store(window);
        char go = 0;
        if (read(self.ends_[0], &go, 1) != 1) return nullptr;
        [[maybe_unused]] std::uint8_t byte =
            *const_cast<volatile std::uint8_t*>(window - elsewhere_pages * page_bytes);
        // Faults in a row bring 1, 2, 4, 8 and 16 pages: the last run begins where the window does, and ends
        // well within it.
        for (std::uint8_t* page = window - 15 * page_bytes;
             page != window + (window_pages - used_pages) * page_bytes; page += page_bytes)
            byte = *const_cast<volatile std::uint8_t*>(page);
        sigaltstack(&former, nullptr);
        return nullptr;
    }

    std::uint8_t* stack_ = nullptr;
    alignas(16) std::array<std::uint8_t, 256 * 1024> alternate_{};
    std::atomic<std::uint8_t*> window_{nullptr};
    int zeros_ = -1;
    int ends_[2] = {-1, -1};
};

TEST_F(InlineStack, WhatComesAheadNearTheStackPointerIsNotWriteProtected) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    ASSERT_EQ(pthread_attr_setstack(&attributes, stack_, stack_pages * page_bytes), 0);
    pthread_t thread = {};
    ASSERT_EQ(pthread_create(&thread, &attributes, read_towards_the_stack_pointer, this), 0);
    ASSERT_TRUE(eventually([&] { return window_.load() != nullptr; }));
    std::uint8_t* const window = window_.load();
    std::uint8_t* const first = window - 15 * page_bytes;
    constexpr std::uint64_t far_pages = 15 + window_pages - used_pages;
    make_far(first, far_pages);
    make_far(window - elsewhere_pages * page_bytes, 1);
    ASSERT_EQ(write(ends_[1], "g", 1), 1);
    ASSERT_EQ(pthread_join(thread, nullptr), 0);
    pthread_attr_destroy(&attributes);

    EXPECT_GT(stats().promotions_ahead, far_pages / 2);
    EXPECT_FALSE(kernel_can_write(zeros_, window - elsewhere_pages * page_bytes));
    for (std::uint8_t* page = window; page != window + window_pages * page_bytes; page += page_bytes)
        EXPECT_TRUE(kernel_can_write(zeros_, page)) << (page - window) / static_cast<long>(page_bytes);
    EXPECT_EQ(pn_promote(heap_, stack_, stack_pages * page_bytes), 0);
}

}  // namespace
}  // namespace pnode::test
