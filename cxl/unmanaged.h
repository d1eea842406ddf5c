// Memory that comes straight from the kernel and never from malloc: under the preload library malloc's pages
// can be demoted, and what finds a demoted page again must not be one itself.
#pragma once

#include <cstddef>

namespace pnode::cxl {

// Private, zero-filled and lazy (nothing is reserved: a page costs from its first touch). nullptr when the
// kernel refuses.
void* map_unmanaged(std::size_t bytes) noexcept;
void unmap_unmanaged(void* address, std::size_t bytes) noexcept;

// Base of classes whose objects live in such memory, a mapping each. `new` throws std::bad_alloc when the
// kernel refuses.
struct Unmanaged {
    static void* operator new(std::size_t bytes);
    static void operator delete(void* address, std::size_t bytes) noexcept {
        unmap_unmanaged(address, bytes);
    }
};

// `count` zeroed elements. T must be fine as zeros and need no destructor. Throws std::bad_alloc as above.
template <typename T>
class LazyArray {
  public:
    explicit LazyArray(std::size_t count)
        : bytes_(count * sizeof(T)), data_(static_cast<T*>(map_or_throw(bytes_))) {}
    ~LazyArray() { unmap_unmanaged(data_, bytes_); }
    LazyArray(const LazyArray&) = delete;
    LazyArray& operator=(const LazyArray&) = delete;

    T& operator[](std::size_t index) noexcept { return data_[index]; }
    const T& operator[](std::size_t index) const noexcept { return data_[index]; }

  private:
    static void* map_or_throw(std::size_t bytes) { return Unmanaged::operator new(bytes == 0 ? 1 : bytes); }
    std::size_t bytes_;
    T* data_;
};

}  // namespace pnode::cxl
