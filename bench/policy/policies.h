// Which page leaves when one must: the policies that are compared.
//
// A policy is told what it would know in life. `hit` is what only hardware sees (the accessed bit): policies
// that a program without privilege could run ignore it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/policy/trace.h"
#include "runtime/levels.h"

namespace pnode::bench {

class Policy {
  public:
    virtual ~Policy() = default;
    // A near page was accessed.
    virtual void hit(std::uint32_t page) { static_cast<void>(page); }
    // A page came near; did it keep its blob?
    virtual void came(std::uint32_t page, bool kept) = 0;
    // The level that a far page has if it comes near now (runtime/levels.h); 0 where there are none.
    virtual unsigned level_if_back(std::uint32_t page) const {
        static_cast<void>(page);
        return 0;
    }
    // Chooses a near page and forgets that it is near. There is one.
    virtual std::uint32_t choose() = 0;
    // The page just chosen: had it been written to since it came near? Known when it is hashed, after it was
    // taken out.
    virtual void left(std::uint32_t page, bool changed) {
        static_cast<void>(page);
        static_cast<void>(changed);
    }
    // Words looked at so far, to choose.
    std::uint64_t looked_at() const { return looked_at_; }

  protected:
    std::uint64_t looked_at_ = 0;
};

struct PolicyChoice {
    std::string name;
    bool needs_accessed_bits = false;
    // `near_pages`: how many may be near. `trace` is what the optimum looks ahead in.
    std::unique_ptr<Policy> (*make)(const Trace& trace, std::uint32_t near_pages) = nullptr;
};

// optimum, lru, clock, s3-fifo, fifo, s3-fifo-refaults, levels.
const std::vector<PolicyChoice>& policies();
std::unique_ptr<Policy> make_levels(std::uint32_t pages, std::uint32_t near_pages, const LevelRule& rule);

}  // namespace pnode::bench
