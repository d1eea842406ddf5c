// Skewed popularity: item number r in the order of popularity is asked for in proportion to 1 / r^0.99, the
// usual benchmark of caches. Popular items lie anywhere.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace pnode::bench {

class Zipf {
  public:
    static constexpr double default_exponent = 0.99;
    // The same for the same arguments.
    explicit Zipf(std::uint32_t items, double exponent = default_exponent);
    std::uint32_t pick(std::mt19937_64& random) const;

  private:
    std::vector<std::uint32_t> item_of_rank_;
    std::vector<double> cumulative_;  // weight of the ranks up to this one
};

}  // namespace pnode::bench
