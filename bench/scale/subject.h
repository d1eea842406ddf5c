// A heap of a certain size whose pages are all written, and what touching them costs: few of them may be near
// at once, so that a touch is a fault, and an eviction that makes room for it.
#pragma once

#include <pnode/pnode.h>

#include <cstdint>
#include <random>
#include <string>
#include <string_view>

namespace pnode::bench {

struct HeapShape {
    std::string name;
    std::uint64_t address_bytes = 0;
    std::uint64_t pages = 0;       // written; evenly spread over the addresses,
    std::uint64_t area_pages = 0;  // so many side by side
};

class ScaleSubject {
  public:
    // Opens the heap and writes all its pages. Throws std::runtime_error.
    ScaleSubject(HeapShape shape, std::string_view text, std::uint64_t near_bytes, std::uint64_t seed);
    ~ScaleSubject();
    ScaleSubject(const ScaleSubject&) = delete;
    ScaleSubject& operator=(const ScaleSubject&) = delete;

    // ns a page brought near, of `count` touches all over the heap; each page's number proven to be its own.
    enum class Touch : std::uint8_t { read, write };
    double touch(std::uint64_t count, Touch touch);

    const HeapShape& shape() const noexcept { return shape_; }
    double open_ns() const noexcept { return open_ns_; }
    double far_share() const;  // of its pages

  private:
    pn_stats_t stats() const;
    std::uint8_t* page(std::uint64_t index) const noexcept;
    void fill(std::string_view text);

    HeapShape shape_;
    pn_heap* heap_ = nullptr;
    std::uint8_t* buffer_ = nullptr;
    double open_ns_ = 0;
    std::mt19937_64 random_;
};

}  // namespace pnode::bench
