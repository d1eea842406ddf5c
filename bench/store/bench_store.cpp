// The blob store alone: a blob's allocation and freeing (scrubbing included), and the look-up on the fault
// path.
//
// Region sizes in GiB: 1, and 1024 (sparse: only what is used is there). bench_store --benchmark_filter=...
// as Google Benchmark has it.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cxl/blob_store.h"
#include "cxl/region.h"

namespace {

using namespace pnode::cxl;

constexpr std::size_t blobs_alive = 100000;

struct Setup {
    std::unique_ptr<Region> region;
    std::unique_ptr<BlobStore> store;

    explicit Setup(std::int64_t region_gib) {
        std::string message;
        if (open_memory_region(static_cast<std::uint64_t>(region_gib) << 30, &region, &message) != 0)
            std::abort();
        store = std::make_unique<BlobStore>(*region);
    }
};

// Shared by the threads of one run: made before them and destroyed after.
std::unique_ptr<Setup> setup;
std::vector<BlobRef> alive;

std::vector<std::size_t> blob_sizes(std::size_t count, unsigned seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> typical(1400, 600);
    std::vector<std::size_t> sizes(count);
    for (std::size_t& bytes : sizes)
        bytes = static_cast<std::size_t>(std::clamp(typical(random), 40.0, 3600.0));
    return sizes;
}

void open_store(const benchmark::State& state) {
    setup = std::make_unique<Setup>(state.range(0));
    for (const std::size_t bytes : blob_sizes(blobs_alive, 1)) alive.push_back(setup->store->allocate(bytes));
    std::shuffle(alive.begin(), alive.end(), std::mt19937_64(2));
    for (const BlobRef ref : alive) setup->store->bytes(ref)[0] = std::byte{1};
}

void close_store(const benchmark::State&) {
    alive.clear();
    setup.reset();
}

// One blob at a time, of one size, while 100,000 others are alive.
void allocate_free_pair(benchmark::State& state) {
    BlobStore& store = *setup->store;
    const auto bytes = static_cast<std::size_t>(state.range(1));
    for (auto _ : state) {
        const BlobRef ref = store.allocate(bytes);
        benchmark::DoNotOptimize(ref);
        store.free(ref);
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(allocate_free_pair)
    ->ArgNames({"GiB", "bytes"})
    ->ArgsProduct({{1, 1024}, {100, 1400, 3600}})
    ->Setup(open_store)
    ->Teardown(close_store)
    ->ThreadRange(1, 2)
    ->UseRealTime();

// A window of 10,000 blobs of mixed sizes: the oldest goes for each that comes, as when pages are demoted and
// promoted.
void replace_oldest(benchmark::State& state) {
    BlobStore& store = *setup->store;
    const std::vector<std::size_t> sizes =
        blob_sizes(16384, 3u + static_cast<unsigned>(state.thread_index()));
    std::vector<BlobRef> window(10000, no_blob);
    std::size_t at = 0;
    std::size_t next = 0;
    for (auto _ : state) {
        if (window[at] != no_blob) store.free(window[at]);
        window[at] = store.allocate(sizes[next]);
        at = at + 1 == window.size() ? 0 : at + 1;
        next = (next + 1) % sizes.size();
    }
    for (const BlobRef ref : window) {
        if (ref != no_blob) store.free(ref);
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(replace_oldest)
    ->ArgName("GiB")
    ->Arg(1)
    ->Arg(1024)
    ->Setup(open_store)
    ->Teardown(close_store)
    ->ThreadRange(1, 2)
    ->UseRealTime();

// The look-up alone, of 100,000 blobs in random order.
void look_up(benchmark::State& state) {
    const BlobStore& store = *setup->store;
    std::size_t at = static_cast<std::size_t>(state.thread_index()) * alive.size() / 2;
    for (auto _ : state) {
        benchmark::DoNotOptimize(store.bytes(alive[at]));
        at = at + 1 == alive.size() ? 0 : at + 1;
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(look_up)
    ->ArgName("GiB")
    ->Arg(1)
    ->Arg(1024)
    ->Setup(open_store)
    ->Teardown(close_store)
    ->ThreadRange(1, 2)
    ->UseRealTime();

// A lease over 100,000 blobs, and its end when nothing was freed under it.
void lease_and_end(benchmark::State& state) {
    for (auto _ : state) {
        setup->store->lease_all();
        setup->store->end_lease();
    }
}
BENCHMARK(lease_and_end)->ArgName("GiB")->Arg(1)->Setup(open_store)->Teardown(close_store);

// Region and store, empty.
void open_and_close(benchmark::State& state) {
    for (auto _ : state) benchmark::DoNotOptimize(std::make_unique<Setup>(state.range(0)));
}
BENCHMARK(open_and_close)->ArgName("GiB")->Arg(1)->Arg(1024);

}  // namespace
