// pnode.hpp: pnode.h for C++20, with owners instead of closes and exceptions instead of errno values.
//
//     pn::Heap heap({.near_bytes_max = 64 << 20, .codec = "zstd"});
//     pn::Buffer<Record> records(heap, 1'000'000);
//     records[7] = record;       // comes near when it is touched
//     records.demote();          // cold from here on
//
// Rules: those of pnode.h. Every class owns what it names and can be moved, not copied; a heap outlives its
// buffers, pins and allocators, a node its heaps. What fails throws pn::Error with the errno value as its
// code and, of what was to be opened, the line that names the cure; destructors never throw. Header only: all
// of it is calls of pnode.h.
#ifndef PNODE_PNODE_HPP
#define PNODE_PNODE_HPP

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include "pnode/pnode.h"

namespace pn {

class Error : public std::system_error {
  public:
    Error(int error, const std::string& what) : std::system_error(error, std::generic_category(), what) {}
};

namespace detail {

inline void check(int error, const char* what) {
    if (error != 0) throw Error(error, what);
}
// Of calls that say more than an errno value does.
inline void check_open(int error, const char* what) {
    if (error == 0) return;
    const std::string cure = pn_last_message();
    throw Error(error, cure.empty() ? what : what + (": " + cure));
}
template <class Owner, class Stats>
Stats stats_of(int (*ask)(Owner*, Stats*) noexcept, Owner* owner, const char* what) {
    Stats stats = {};
    stats.struct_bytes = sizeof stats;
    stats.version = PN_VERSION;
    check(ask(owner, &stats), what);
    return stats;
}
struct CloseNode {
    void operator()(pn_node* node) const noexcept { pn_node_close(node); }
};
struct CloseHeap {
    void operator()(pn_heap* heap) const noexcept { pn_heap_close(heap); }
};

}  // namespace detail

// A node of its own, for several heaps or direct buffers. Opening a heap with a spec needs none.
class Node {
  public:
    explicit Node(const std::string& spec, const pn_node_options* options = nullptr) {
        pn_node* opened = nullptr;
        detail::check_open(pn_node_open(spec.c_str(), options, &opened), "pn_node_open");
        node_.reset(opened);
    }
    // Throws EBUSY, and everything is as before; the destructor tries too, and leaves it open then.
    void close() {
        detail::check_open(pn_node_close(node_.get()), "pn_node_close");
        node_.release();
    }
    void set_pressure(std::uint32_t permille) {
        detail::check(pn_node_set_pressure(get(), permille), "pn_node_set_pressure");
    }
    pn_node_stats_t stats() const { return detail::stats_of(&pn_node_stats, get(), "pn_node_stats"); }
    pn_node* get() const noexcept { return node_.get(); }

  private:
    std::unique_ptr<pn_node, detail::CloseNode> node_;
};

// As pn_heap_options, to be named one by one.
struct HeapOptions {
    std::uint64_t address_bytes_max = 0;
    std::uint64_t near_bytes_max = 0;
    std::uint64_t far_bytes_max = 0;
    std::uint64_t total_bytes_max = 0;
    std::uint64_t activation_bytes = 0;
    std::string node_spec = {};  // empty: memory of the machine
    const Node* node = nullptr;  // instead of a spec
    std::string codec = {};      // empty: lz4
    std::uint32_t engine = PN_ENGINE_AUTO;
    std::uint32_t flags = 0;
};

class Heap {
  public:
    explicit Heap(const HeapOptions& wanted = {}) {
        pn_heap_options options;
        pn_heap_options_init(&options);
        options.address_bytes_max = wanted.address_bytes_max;
        options.near_bytes_max = wanted.near_bytes_max;
        options.far_bytes_max = wanted.far_bytes_max;
        options.total_bytes_max = wanted.total_bytes_max;
        options.activation_bytes = wanted.activation_bytes;
        if (!wanted.node_spec.empty()) options.node_spec = wanted.node_spec.c_str();
        if (wanted.node != nullptr) options.node = wanted.node->get();
        if (!wanted.codec.empty()) options.codec = wanted.codec.c_str();
        options.engine = wanted.engine;
        options.flags = wanted.flags;
        pn_heap* opened = nullptr;
        detail::check_open(pn_heap_open(&options, &opened), "pn_heap_open");
        heap_.reset(opened);
    }
    void set_near_limit(std::uint64_t bytes) {
        detail::check(pn_heap_set_near_limit(get(), bytes), "pn_heap_set_near_limit");
    }
    void set_total_limit(std::uint64_t bytes) {
        detail::check(pn_heap_set_total_limit(get(), bytes), "pn_heap_set_total_limit");
    }
    pn_stats_t stats() const { return detail::stats_of(&pn_stats, get(), "pn_stats"); }
    pn_heap* get() const noexcept { return heap_.get(); }

  private:
    std::unique_ptr<pn_heap, detail::CloseHeap> heap_;
};

// Pages that stay near for as long as this lives.
class Pin {
  public:
    Pin(pn_heap* heap, void* address, std::uint64_t bytes) : heap_(heap), address_(address), bytes_(bytes) {
        detail::check(pn_pin(heap, address, bytes), "pn_pin");
    }
    Pin(Pin&& other) noexcept
        : heap_(other.heap_), address_(std::exchange(other.address_, nullptr)), bytes_(other.bytes_) {}
    Pin& operator=(Pin&& other) noexcept {
        std::swap(heap_, other.heap_);
        std::swap(address_, other.address_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Pin() {
        if (address_ != nullptr) pn_unpin(heap_, address_, bytes_);
    }

  private:
    pn_heap* heap_;
    void* address_;
    std::uint64_t bytes_;
};

// `count` objects, zero bytes at first, in whole pages of their own. No constructor or destructor runs: of
// types that do not need any.
template <class T>
class Buffer {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>,
                  "pages come and go as bytes");

  public:
    Buffer(Heap& heap, std::size_t count) : heap_(heap.get()), count_(count) {
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T))
            throw Error(ENOMEM, "pn_buffer_alloc");
        void* address = nullptr;
        detail::check(pn_buffer_alloc(heap_, bytes(), alignof(T), &address), "pn_buffer_alloc");
        objects_ = static_cast<T*>(address);
    }
    Buffer(Buffer&& other) noexcept
        : heap_(other.heap_), count_(other.count_), objects_(std::exchange(other.objects_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(heap_, other.heap_);
        std::swap(count_, other.count_);
        std::swap(objects_, other.objects_);
        return *this;
    }
    // Pins of it must be gone.
    ~Buffer() {
        if (objects_ != nullptr) pn_buffer_free(heap_, objects_, bytes());
    }

    T* data() const noexcept { return objects_; }
    std::size_t size() const noexcept { return count_; }
    std::uint64_t bytes() const noexcept { return count_ * sizeof(T); }
    T& operator[](std::size_t index) const noexcept { return objects_[index]; }
    T* begin() const noexcept { return objects_; }
    T* end() const noexcept { return objects_ + count_; }
    std::span<T> span() const noexcept { return {objects_, count_}; }

    // Of all its pages; how many are far or fresh now.
    std::uint64_t demote() const {
        std::uint64_t pages = 0;
        detail::check(pn_demote(heap_, objects_, bytes(), &pages), "pn_demote");
        return pages;
    }
    void promote() const { detail::check(pn_promote(heap_, objects_, bytes()), "pn_promote"); }
    void release() const { detail::check(pn_release(heap_, objects_, bytes()), "pn_release"); }
    void set_codec(const char* codec) const {
        detail::check(pn_buffer_set_codec(heap_, objects_, bytes(), codec), "pn_buffer_set_codec");
    }
    // Of the pages that hold these objects.
    [[nodiscard]] Pin pin(std::size_t first, std::size_t count) const {
        if (first > count_ || count > count_ - first || count == 0) throw Error(EINVAL, "pn_pin");
        const auto begin = reinterpret_cast<std::uintptr_t>(objects_ + first) / PN_PAGE_BYTES * PN_PAGE_BYTES;
        const auto end = reinterpret_cast<std::uintptr_t>(objects_ + first + count);
        return {heap_, reinterpret_cast<void*>(begin), end - begin};
    }
    [[nodiscard]] Pin pin() const { return pin(0, count_); }
    // A hint that the object is wanted soon.
    void prefetch(std::size_t index) const {
        detail::check(pn_prefetch(heap_, objects_ + index), "pn_prefetch");
    }

  private:
    pn_heap* heap_;
    std::size_t count_;
    T* objects_ = nullptr;
};

// For containers of few, large allocations (std::vector, a hash table's array): each takes whole pages.
template <class T>
class Allocator {
  public:
    using value_type = T;

    explicit Allocator(Heap& heap) noexcept : heap_(heap.get()) {}
    template <class U>
    Allocator(const Allocator<U>& other) noexcept : heap_(other.heap()) {}

    T* allocate(std::size_t count) {
        void* address = nullptr;
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T) ||
            pn_buffer_alloc(heap_, count * sizeof(T), alignof(T), &address) != 0)
            throw std::bad_alloc();
        return static_cast<T*>(address);
    }
    void deallocate(T* objects, std::size_t count) noexcept {
        pn_buffer_free(heap_, objects, count * sizeof(T));
    }

    pn_heap* heap() const noexcept { return heap_; }
    template <class U>
    bool operator==(const Allocator<U>& other) const noexcept {
        return heap_ == other.heap();
    }

  private:
    pn_heap* heap_;
};

}  // namespace pn

#endif
