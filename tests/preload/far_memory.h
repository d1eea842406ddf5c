// Memory whose every byte is known, and how to see that it went far. For programs that run under the preload
// library.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace preload_test {

inline constexpr std::size_t page_bytes = 4096;
inline constexpr std::size_t large_bytes = std::size_t{16} << 20;  // twice these tests' near limit

// A block of malloc's that compresses, as text does: words with a counter in them.
class FarBlock {
  public:
    FarBlock(std::size_t bytes, std::uint64_t seed)
        : words_(static_cast<std::uint64_t*>(std::malloc(bytes))),
          count_(bytes / sizeof(std::uint64_t)),
          seed_(seed) {
        if (words_ == nullptr) std::abort();
        for (std::size_t i = 0; i < count_; ++i) words_[i] = expected(i);
    }
    ~FarBlock() { std::free(words_); }
    FarBlock(const FarBlock&) = delete;
    FarBlock& operator=(const FarBlock&) = delete;

    bool is_intact() const {
        for (std::size_t i = 0; i < count_; ++i) {
            const std::uint64_t seen = const_cast<const volatile std::uint64_t*>(words_)[i];
            if (seen != expected(i)) return tell(i, seen);
        }
        return true;
    }
    // Async-signal-safe. Each call really reads: in a loop without end the compiler may not conclude that one
    // of them finds what ends it.
    bool page_is_intact(std::size_t page) const {
        constexpr std::size_t words_a_page = page_bytes / sizeof(std::uint64_t);
        for (std::size_t i = page * words_a_page; i < (page + 1) * words_a_page; ++i) {
            if (const_cast<const volatile std::uint64_t*>(words_)[i] != expected(i)) return false;
        }
        return true;
    }
    void rewrite(std::uint64_t seed) {
        seed_ = seed;
        for (std::size_t i = 0; i < count_; ++i) words_[i] = expected(i);
    }
    std::byte* data() const { return reinterpret_cast<std::byte*>(words_); }
    std::size_t bytes() const { return count_ * sizeof(std::uint64_t); }

  private:
    std::uint64_t expected(std::size_t i) const { return (seed_ << 40) + (i & ~std::size_t{3}); }

    // What a wrong byte looks like says where it came from: zeros, what was there before, one page or all
    // from here on. To standard error at once, because it may be a child that finds it. False.
    bool tell(std::size_t at, std::uint64_t seen) const {
        std::size_t zero = 0, wrong = 0, wrong_pages = 0;
        const std::size_t end = std::min(count_, at + page_bytes / sizeof(std::uint64_t));
        for (std::size_t i = at; i < end; ++i) {
            zero += words_[i] == 0;
            wrong += words_[i] != expected(i);
        }
        for (std::size_t i = at; i < count_; i += page_bytes / sizeof(std::uint64_t))
            wrong_pages += words_[i] != expected(i);
        dprintf(STDERR_FILENO,
                "process %d: word %zu of %zu at %p is %#lx, not %#lx; of the next %zu words %zu are wrong, "
                "%zu zero; of the pages from here on %zu of %zu\n",
                getpid(), at, count_, static_cast<const void*>(words_ + at), seen, expected(at), end - at,
                wrong, zero, wrong_pages, (count_ - at) / (page_bytes / sizeof(std::uint64_t)));
        return false;
    }

    std::uint64_t* words_;
    std::size_t count_;
    std::uint64_t seed_;
};

// Pages of the range that are in place right now, or in the kernel's own swap: all but what is far. Touches
// none, and asks the kernel, for the library's mincore() says nothing of it.
inline std::size_t resident_pages(const void* address, std::size_t bytes) {
    constexpr std::uint64_t present_or_swapped = std::uint64_t{3} << 62;  // of a word of proc_pid_pagemap(5)
    const auto first = reinterpret_cast<std::uintptr_t>(address) / page_bytes;
    const std::size_t end = (reinterpret_cast<std::uintptr_t>(address) + bytes + page_bytes - 1) / page_bytes;
    std::vector<std::uint64_t> pages(end - first);
    const int pagemap = open("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
    const ssize_t length = pread(pagemap, pages.data(), pages.size() * sizeof(pages[0]),
                                 static_cast<off_t>(first * sizeof(pages[0])));
    close(pagemap);
    if (length != static_cast<ssize_t>(pages.size() * sizeof(pages[0]))) return pages.size();
    std::size_t resident = 0;
    for (const std::uint64_t page : pages) resident += (page & present_or_swapped) != 0;
    return resident;
}

// Reads `pressure`, a block larger than the near limit, until at most `pages_max` of the range are near;
// false when a minute did not suffice. The range must share its pages with nothing that is in use.
inline bool becomes_far(const void* address, std::size_t bytes, std::size_t pages_max,
                        const FarBlock& pressure) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (resident_pages(address, bytes) > pages_max) {
        if (!pressure.is_intact() || std::chrono::steady_clock::now() > deadline) return false;
    }
    return true;
}

// At least half of a block that is larger than the near limit goes far by itself.
inline bool becomes_mostly_far(FarBlock& block) {
    return becomes_far(block.data(), block.bytes(), block.bytes() / page_bytes / 2, block);
}

}  // namespace preload_test
