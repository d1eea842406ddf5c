// What is in the servers, and which of it is asked for in what order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bench/common/catalogue.h"
#include "bench/common/zipf.h"

namespace pnode::bench {

// The catalogue under its packages' names, then again under "NAME#1", "NAME#2", ...
class Dataset {
  public:
    // `repeat` 0: until `bytes` of values are reached. The last repetition may be partial.
    Dataset(Catalogue catalogue, std::uint64_t repeat, std::uint64_t bytes);

    std::uint32_t size() const { return size_; }
    std::uint64_t value_bytes() const { return value_bytes_; }
    const std::string& source() const { return catalogue_.source; }
    std::string key(std::uint32_t number) const;
    std::string_view value(std::uint32_t number) const;

  private:
    Catalogue catalogue_;
    std::uint32_t size_ = 0;
    std::uint64_t value_bytes_ = 0;
};

struct Request {
    std::uint32_t key;
    bool is_set;  // writes the same value again: a new object for the server, and still checkable
};

enum class Workload { get_uniform, get_zipf, get_set_uniform };
inline constexpr Workload workloads[] = {Workload::get_uniform, Workload::get_zipf,
                                         Workload::get_set_uniform};
const char* name_of(Workload workload);

// Makes request sequences; the same seed gives the same one, so that all variants of a round are asked the
// same.
class RequestSource {
  public:
    explicit RequestSource(std::uint32_t keys);
    std::vector<Request> make(Workload workload, std::uint64_t requests, std::uint64_t seed) const;
    // Every key once, in order.
    std::vector<Request> load() const;

  private:
    std::uint32_t keys_;
    Zipf popular_;
};

}  // namespace pnode::bench
