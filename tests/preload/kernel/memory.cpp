#include "tests/preload/kernel/memory.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>

#include <cstdlib>

namespace kernel_access {
namespace {

constexpr std::size_t arena_bytes = std::size_t{2} << 20;
constexpr int tries_max = 20000;  // under stress pages come and go by themselves

std::byte* map_plain() {
    const long address =
        syscall(SYS_mmap, nullptr, arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == -1) std::abort();
    return reinterpret_cast<std::byte*>(address);
}

std::byte* allocate_managed() {
    void* const arena = std::aligned_alloc(page_bytes, arena_bytes);
    if (arena == nullptr) std::abort();
    return static_cast<std::byte*>(arena);
}

// Each once a process.
std::byte* arena_of(Where where) {
    static std::byte* const plain = map_plain();
    static std::byte* const managed = allocate_managed();
    return where == Where::near ? plain : managed;
}

std::size_t rounded_up(std::size_t value, std::size_t unit) {
    return (value + unit - 1) / unit * unit;
}

// From the start of a page on.
std::size_t offset_in_pages(Layout layout, std::size_t bytes, std::size_t alignment) {
    const std::size_t at_the_end = (rounded_up(bytes, page_bytes) - bytes) / alignment * alignment;
    switch (layout) {
        case Layout::start:
            return 0;
        case Layout::inside:
            return rounded_up(104, alignment);
        case Layout::end:
            return at_the_end;
        case Layout::across:
            return bytes <= alignment ? at_the_end : page_bytes - rounded_up(1, alignment);
    }
    return 0;
}

}  // namespace

std::string describe(Where where, const Shape& shape) {
    constexpr const char* wheres[] = {"near", "far", "zero"};
    constexpr const char* layouts[] = {"at a page's start", "inside of a page", "at a page's end",
                                       "across pages"};
    return std::string(wheres[static_cast<int>(where)]) + ", " + layouts[static_cast<int>(shape.layout)] +
           ", " + std::to_string(shape.data_bytes) + " bytes of data";
}

void fill_with_text(void* to, std::size_t bytes, unsigned seed) {
    auto* const at = static_cast<char*>(to);
    for (std::size_t i = 0; i < bytes; ++i) at[i] = static_cast<char>('a' + (i / 7 + i / 64 * 5 + seed) % 23);
}

Memory::Memory(Where where, const Shape& shape) : where_(where), shape_(shape), arena_(arena_of(where)) {}

Memory::~Memory() {
    if (forbidden_at_ != 0) mprotect(arena_ + forbidden_at_, page_bytes, PROT_READ | PROT_WRITE);
}

std::byte* Memory::place(std::size_t bytes, std::size_t alignment) {
    return place_at(offset_in_pages(shape_.layout, bytes, alignment), bytes);
}

std::byte* Memory::place_pages(std::size_t bytes) {
    return place_at(0, bytes);
}

std::byte* Memory::place_at(std::size_t offset, std::size_t bytes) {
    std::byte* const pages = arena_ + used_bytes_;
    const std::size_t span = rounded_up(offset + bytes + (bytes == 0), page_bytes);
    if (forbidden_at_ != 0 || used_bytes_ + span + page_bytes > arena_bytes) std::abort();
    std::memcpy(pages, background(span).data(), span);
    objects_.push_back({used_bytes_ + offset, bytes, true});
    used_bytes_ += span;
    return pages + offset;
}

char* Memory::text(std::string_view string) {
    auto* const to = reinterpret_cast<char*>(place(string.size() + 1));
    std::memcpy(to, string.data(), string.size());
    to[string.size()] = '\0';
    return to;
}

std::byte* Memory::room(std::size_t bytes, std::size_t alignment) {
    std::byte* const to = place(bytes, alignment);
    std::memset(to, 0, bytes);
    return to;
}

std::byte* Memory::data(unsigned seed, std::size_t bytes) {
    if (bytes == 0) bytes = data_bytes();
    std::byte* const to = place(bytes);
    fill_with_text(to, bytes, seed);
    return to;
}

void Memory::forget(const void* object) {
    for (Extent& known : objects_) {
        if (arena_ + known.offset == object) known.compared = false;
    }
}

std::byte* Memory::forbidden_page() {
    forbidden_at_ = used_bytes_;
    if (mprotect(arena_ + forbidden_at_, page_bytes, PROT_NONE) != 0) std::abort();
    return arena_ + forbidden_at_;
}

void Memory::away() {
    if (where_ == Where::near) return;
    for (int i = 0; i < tries_max; ++i) {
        madvise(arena_, used_bytes_, MADV_PAGEOUT);
        if (preload_test::resident_pages(arena_, used_bytes_) == 0) {
            went_away_ = true;
            return;
        }
        sched_yield();
    }
    ADD_FAILURE() << preload_test::resident_pages(arena_, used_bytes_) << " of " << used_bytes_ / page_bytes
                  << " pages would not leave";
}

void Memory::nudge() {
    if (where_ != Where::near) madvise(arena_, used_bytes_, MADV_PAGEOUT);
}

std::string Memory::contents() const {
    std::string all;
    for (const Extent& object : objects_) {
        if (object.compared) all.append(reinterpret_cast<const char*>(arena_ + object.offset), object.bytes);
    }
    return all;
}

std::string Memory::background(std::size_t bytes) const {
    std::string pages(bytes, '\0');
    if (where_ != Where::zero) fill_with_text(pages.data(), bytes, 17);
    return pages;
}

bool Memory::surroundings_are_intact() const {
    std::size_t at = 0;
    for (const Extent& object : objects_) {
        const std::size_t end = rounded_up(object.offset + object.bytes + (object.bytes == 0), page_bytes);
        std::string expected = background(end - at);
        std::memcpy(expected.data() + (object.offset - at), arena_ + object.offset, object.bytes);
        if (std::memcmp(expected.data(), arena_ + at, expected.size()) != 0) return false;
        at = end;
    }
    return true;
}

}  // namespace kernel_access
