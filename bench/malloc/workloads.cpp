#include "bench/malloc/workloads.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>

#include "bench/common/samples.h"
#include "bench/common/together.h"

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;

// Its length in its first word and its last, so that it is known wherever it is freed.
std::byte* make_block(std::size_t bytes) {
    auto* const block = static_cast<std::byte*>(std::malloc(bytes));
    if (block == nullptr) throw std::bad_alloc();
    const std::uint64_t length = bytes;
    std::memcpy(block, &length, sizeof length);
    std::memcpy(block + bytes - sizeof length, &length, sizeof length);
    return block;
}

void free_block(std::byte* block) {
    if (block == nullptr) return;
    std::uint64_t first = 0, last = 0;
    std::memcpy(&first, block, sizeof first);
    std::memcpy(&last, block + first - sizeof last, sizeof last);
    if (first != last) throw std::runtime_error("a block's ends have changed");
    std::free(block);
}

struct FreeBlock {
    void operator()(std::byte* block) const { free_block(block); }
};
using Block = std::unique_ptr<std::byte, FreeBlock>;

// As programs ask: most is small, most bytes are not.
std::size_t mixed_bytes(std::mt19937_64& random) {
    const auto within = [&](std::size_t least, std::size_t most) {
        return least + random() % (most - least);
    };
    const unsigned kind = static_cast<unsigned>(random() % 1000);
    if (kind < 600) return within(16, 128);
    if (kind < 900) return within(128, 1024);
    if (kind < 990) return within(1024, 4096);
    return within(4096, 32768);
}
constexpr std::size_t mixed_bytes_mean = 630;

// The places that blocks are in, of all threads: made by the first who comes, and left as they are at the end
// of a turn, so that the next begins where it ended.
std::vector<std::atomic<std::byte*>>& places_of(const Load& load) {
    static std::vector<std::atomic<std::byte*>> places(load.live_bytes / mixed_bytes_mean);
    return places;
}

void replace_any(const Load& load, unsigned thread, std::span<std::atomic<std::byte*>> places) {
    std::mt19937_64 random(load.seed * 64 + thread);
    for (std::uint64_t i = 0; i < load.allocations; ++i) {
        std::byte* const made = make_block(mixed_bytes(random));
        free_block(places[random() % places.size()].exchange(made));
    }
}

void mixed(const Load& load, unsigned thread, unsigned threads) {
    const std::span places(places_of(load));
    const std::size_t own = places.size() / threads;
    replace_any(load, thread, places.subspan(thread * own, own));
}

void passed(const Load& load, unsigned thread, unsigned) {
    replace_any(load, thread, places_of(load));
}

// Three allocations each: the node, and two strings that do not fit in place.
void records(const Load& load, unsigned thread, unsigned threads) {
    constexpr std::uint64_t allocations_each = 3, bytes_each = 512;
    std::mt19937_64 random(load.seed * 64 + thread);
    const std::uint64_t most = load.live_bytes / threads / bytes_each;
    for (std::uint64_t made = 0; made < load.allocations;) {
        std::map<std::string, std::string> tree;
        for (std::uint64_t i = 0; i < most && made < load.allocations; ++i, made += allocations_each)
            tree.emplace("record-number-" + std::to_string(random()), std::string(64 + random() % 512, 'x'));
    }
}

void large(const Load& load, unsigned thread, unsigned threads) {
    constexpr std::size_t least = std::size_t{256} << 10, most = std::size_t{2} << 20;
    std::mt19937_64 random(load.seed * 64 + thread);
    std::vector<Block> blocks(std::max<std::size_t>(load.live_bytes / threads / ((least + most) / 2), 2));
    for (std::uint64_t i = 0; i < load.allocations; ++i) {
        const std::size_t bytes = least + random() % (most - least);
        Block& place = blocks[random() % blocks.size()];
        place.reset();
        place.reset(make_block(bytes));
        for (std::size_t at = page_bytes; at + page_bytes < bytes; at += page_bytes)
            place.get()[at] = std::byte{1};
    }
}

}  // namespace

const std::vector<Workload>& workloads() {
    static const std::vector<Workload> all = {{"mixed", "each thread its own", 1, mixed},
                                              {"passed", "freed by whichever thread", 1, passed},
                                              {"records", "trees of strings", 1, records},
                                              {"large", "256 KiB to 2 MiB, touched", 256, large}};
    return all;
}

std::vector<std::string> workload_names() {
    std::vector<std::string> names;
    for (const Workload& workload : workloads()) names.emplace_back(workload.name);
    return names;
}

double run(const Workload& workload, const Load& load, unsigned threads) {
    // What an allocator gave back to the kernel while others had their turn is none of a turn's cost.
    Load made = load;
    made.allocations /= workload.one_in;
    Load again = made;
    again.allocations /= 4;
    run_together(threads, static_cast<int>(threads), threads, [&](Share share, std::vector<std::uint32_t>&) {
        workload.run(again, static_cast<unsigned>(share.begin), threads);
    });
    const auto work = [&](Share share, std::vector<std::uint32_t>& latencies) {
        const std::uint64_t begun_ns = now_ns();
        workload.run(made, static_cast<unsigned>(share.begin), threads);
        latencies.push_back(clamp_ns(now_ns() - begun_ns));
    };
    return run_together(threads, static_cast<int>(threads), threads * made.allocations, work).per_s;
}

}  // namespace pnode::bench
