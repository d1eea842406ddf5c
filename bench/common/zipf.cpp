#include "bench/common/zipf.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pnode::bench {

Zipf::Zipf(std::uint32_t items, double exponent) : item_of_rank_(items), cumulative_(items) {
    std::iota(item_of_rank_.begin(), item_of_rank_.end(), 0u);
    std::shuffle(item_of_rank_.begin(), item_of_rank_.end(), std::mt19937_64(1));
    double total = 0;
    for (std::uint32_t rank = 0; rank < items; ++rank)
        cumulative_[rank] = total += 1 / std::pow(static_cast<double>(rank) + 1, exponent);
}

std::uint32_t Zipf::pick(std::mt19937_64& random) const {
    const double weight = std::uniform_real_distribution<double>(0, cumulative_.back())(random);
    const auto at = std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, weight);
    return item_of_rank_[static_cast<std::size_t>(at - cumulative_.begin())];
}

}  // namespace pnode::bench
