// Where a case puts what the kernel reads and writes: in plain memory, or in the heap, with every page of it
// taken away before the call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tests/preload/far_memory.h"

namespace kernel_access {

using preload_test::page_bytes;

enum class Where {
    near,  // plain memory, which is the kernel's: the answer that all others are held against
    far,   // pages with text around what was put there: they become blobs
    zero   // pages with zeros around it: those with nothing but zeros become fresh
};

enum class Layout { start, inside, end, across };

// How an object lies in its pages, and how long a buffer is that may have any length.
struct Shape {
    Layout layout;
    std::size_t data_bytes;
};

inline constexpr Shape shapes[] = {
    {Layout::start, 1},     {Layout::inside, 50},   {Layout::end, 100},   {Layout::across, 12},
    {Layout::across, 8194}, {Layout::start, 12288}, {Layout::end, 65536},
};

std::string describe(Where where, const Shape& shape);

// Text that compresses, and differs by seed.
void fill_with_text(void* to, std::size_t bytes, unsigned seed);

class Memory {
  public:
    Memory(Where where, const Shape& shape);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    // Each object has pages of its own, and lies in them as the shape says.
    std::byte* place(std::size_t bytes, std::size_t alignment = 1);
    template <class T>
    T* put(const T& value = T{}) {
        T* const to = reinterpret_cast<T*>(place(sizeof(T), alignof(T)));
        std::memcpy(to, &value, sizeof(T));
        return to;
    }
    template <class T, std::size_t n>
    T* put_all(const std::array<T, n>& values) {
        return reinterpret_cast<T*>(put(values));
    }
    char* text(std::string_view string);
    // Zeros.
    std::byte* room(std::size_t bytes, std::size_t alignment = 1);
    std::byte* data(unsigned seed, std::size_t bytes = 0);  // 0: data_bytes()
    std::size_t data_bytes() const { return shape_.data_bytes; }
    // At the start of a page, whatever the shape.
    std::byte* place_pages(std::size_t bytes);
    // What is in this object differs from run to run: a pointer, a number of a process.
    void forget(const void* object);
    // The page after everything else, which every access is refused.
    std::byte* forbidden_page();

    // No page of it is mapped in place when this returns; the test fails when that cannot be had.
    void away();
    // Asks for the same while a call is under way, where a page may be held.
    void nudge();
    bool went_away() const { return went_away_; }

    // Everything that was put and not forgotten, one after the other.
    std::string contents() const;
    // The bytes around it, in the same pages, are what they were.
    bool surroundings_are_intact() const;

  private:
    struct Extent {
        std::size_t offset, bytes;
        bool compared;
    };
    std::byte* place_at(std::size_t offset, std::size_t bytes);
    std::string background(std::size_t bytes) const;

    Where where_;
    Shape shape_;
    std::byte* arena_;
    std::vector<Extent> objects_;
    std::size_t used_bytes_ = 0;
    std::size_t forbidden_at_ = 0;
    bool went_away_ = false;
};

}  // namespace kernel_access
