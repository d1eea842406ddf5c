// Which page stays longer: what a page's level is, and how often the evictor's hand passes over it.
//
// Levels are learnt from refaults: how soon a page comes back after it left. Of pages that nothing but chance
// brings back, about as many must sink as rise; a page that is in use all the time is back at once, whenever
// it leaves, and goes up quickly. bench/policy replays this rule, with these and other numbers, against
// others.
#pragma once

#include <algorithm>
#include <cstdint>

namespace pnode {

inline constexpr unsigned skip_max = 31;  // what a page word has room for

// Ages are eighths of the near pages' evictions, from when a page left until it is back (Heap::epoch).
struct LevelRule {
    unsigned level_max = 6;
    unsigned leap_age_max = 0;  // back by then: two levels up
    unsigned rise_age_max = 3;  // one level up
    unsigned sink_age_min = 5;  // one level down
    // A page that kept its blob leaves for a tenth of what another one costs, and comes back at the same
    // cost: in all for a third. So it is passed over less often, by as many powers of two, and the pages that
    // would have to be compressed stay longer; misses do not rise.
    unsigned kept_shift = 2;

    constexpr unsigned next(unsigned level, std::uint64_t age) const {
        if (age <= leap_age_max) return std::min(level + 2, level_max);
        if (age <= rise_age_max) return std::min(level + 1, level_max);
        if (age >= sink_age_min) return level - std::min(level, 1u);
        return level;
    }
    // How many sweeps a page is passed over that comes near.
    constexpr unsigned sweeps(unsigned level, bool kept) const {
        return std::min(((1u << level) - 1) >> (kept ? kept_shift : 0), skip_max);
    }
};
inline constexpr LevelRule level_rule;

}  // namespace pnode
