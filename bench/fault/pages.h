// What is done to pages: filling with text, timed touching and demoting by several threads, and proving that
// no byte was lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/common/samples.h"
#include "bench/fault/tier.h"

namespace pnode::bench {

// Text in pages, and what each page must read back as.
class Contents {
  public:
    // `text` must outlive this and be at least a page long; pages beyond its end repeat it.
    Contents(const std::string& text, std::size_t pages);
    void fill(std::byte* memory);
    // Compares every page with what was written last. Throws std::runtime_error naming the first page that
    // differs.
    void verify(const std::byte* memory) const;
    // Verifies, then writes a new word into every page, so that none equals a copy kept from before.
    void verify_and_change(std::byte* memory);

  private:
    const std::string& text_;
    std::vector<std::uint64_t> hashes_;
    std::uint64_t generation_ = 0;
};

enum class Pattern { sequential, random };
enum class Access { read, write };

// Touches each page of `pages` once. Random: in a shuffled order dealt out to the threads over the whole
// range; sequential: each thread its own stretch, ascending. A latency is one access and the reading of the
// clock.
Round timed_touch(std::byte* memory, std::vector<std::size_t> pages, Pattern pattern, Access access,
                  int threads, std::uint64_t seed);

// Demotes all pages of `tier` in runs of demote_run_pages; a latency is a run's time divided by its pages.
inline constexpr std::size_t demote_run_pages = 64;
Round timed_demote(Tier& tier, std::size_t pages, int threads);

}  // namespace pnode::bench
