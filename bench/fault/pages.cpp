#include "bench/fault/pages.h"

#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <random>
#include <stdexcept>

#include "bench/common/interrupt.h"
#include "bench/common/together.h"

namespace pnode::bench {
namespace {

std::uint64_t hash_page(const std::byte* page) {
    return XXH3_64bits(page, page_bytes);
}

}  // namespace

Contents::Contents(const std::string& text, std::size_t pages) : text_(text), hashes_(pages) {}

void Contents::fill(std::byte* memory) {
    const std::size_t whole_pages = text_.size() / page_bytes;
    for (std::size_t page = 0; page < hashes_.size(); ++page) {
        std::byte* target = memory + page * page_bytes;
        memcpy(target, text_.data() + page % whole_pages * page_bytes, page_bytes);
        hashes_[page] = hash_page(target);
        throw_if_interrupted();
    }
}

void Contents::verify(const std::byte* memory) const {
    for (std::size_t page = 0; page < hashes_.size(); ++page) {
        if (hash_page(memory + page * page_bytes) != hashes_[page])
            throw std::runtime_error("page " + std::to_string(page) +
                                     " came back with other bytes than it left with");
        throw_if_interrupted();
    }
}

void Contents::verify_and_change(std::byte* memory) {
    verify(memory);
    ++generation_;
    for (std::size_t page = 0; page < hashes_.size(); ++page) {
        const std::uint64_t word = generation_ << 32 | page;
        memcpy(memory + page * page_bytes, &word, sizeof word);
        hashes_[page] = hash_page(memory + page * page_bytes);
    }
}

Round timed_touch(std::byte* memory, std::vector<std::size_t> pages, Pattern pattern, Access access,
                  int threads, std::uint64_t seed) {
    if (pattern == Pattern::random) std::shuffle(pages.begin(), pages.end(), std::mt19937_64(seed));
    return run_together(
        pages.size(), threads, pages.size(), [&](Share share, std::vector<std::uint32_t>& latencies) {
            std::uint64_t before = now_ns();
            for (std::size_t i = share.begin; i < share.end; ++i) {
                auto* word = reinterpret_cast<volatile std::uint64_t*>(memory + pages[i] * page_bytes);
                if (access == Access::write)
                    *word = 1;
                else
                    static_cast<void>(*word);
                const std::uint64_t after = now_ns();
                latencies.push_back(clamp_ns(after - before));
                before = after;
                throw_if_interrupted();
            }
        });
}

Round timed_demote(Tier& tier, std::size_t pages, int threads) {
    const std::size_t runs = (pages + demote_run_pages - 1) / demote_run_pages;
    return run_together(runs, threads, pages, [&](Share share, std::vector<std::uint32_t>& latencies) {
        for (std::size_t run = share.begin; run < share.end; ++run) {
            const std::size_t first = run * demote_run_pages,
                              count = std::min(demote_run_pages, pages - first);
            const std::uint64_t before = now_ns();
            tier.demote(first, count);
            latencies.push_back(clamp_ns((now_ns() - before) / count));
            throw_if_interrupted();
        }
    });
}

}  // namespace pnode::bench
