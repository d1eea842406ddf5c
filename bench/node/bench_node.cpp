// What the node adds: a guard around a load, a placement with its limits, a scrub, and whole promotions on
// memory that cannot go bad and on memory that can (a file on /dev/shm stands in for a device).
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <pnode/pnode.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cxl/node.h"

namespace {

using namespace pnode::cxl;

constexpr const char* device_path = "/dev/shm/pnode-bench-node";

std::string spec_of(std::int64_t kind) {
    if (kind == 0) return "memory:64M";
    const int fd = open(device_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 64 << 20) != 0) std::abort();
    close(fd);
    return std::string("dax:") + device_path;
}

std::unique_ptr<Node> open_node(std::int64_t kind) {
    std::unique_ptr<Node> node;
    std::string message;
    if (Node::open(spec_of(kind), &node, &message) != 0) std::abort();
    return node;
}

void name_kind(benchmark::State& state) {
    state.SetLabel(state.range(0) == 0 ? "memory" : "dax");
}

// A load of nothing: the guard alone.
void BM_Load(benchmark::State& state) {
    const auto node = open_node(state.range(0));
    const Region& region = node->region();
    BadRange bad;
    std::byte seen{};
    for (auto _ : state) {
        benchmark::DoNotOptimize(region.load([&] { seen = region.bytes()[0]; }, &bad));
        benchmark::DoNotOptimize(seen);
    }
    name_kind(state);
}

// A blob of typical size placed, and freed, which scrubs it.
void BM_PlaceAndFree(benchmark::State& state) {
    const auto node = open_node(state.range(0));
    const std::vector<std::byte> blob(2048, std::byte{7});
    for (auto _ : state) {
        const BlobRef ref = node->place(blob);
        if (ref == no_blob) std::abort();
        node->store().free(ref);
    }
    name_kind(state);
}

// pn_promote() of one far page at a time, out of as many as are demoted again outside of the measurement.
void BM_Promote(benchmark::State& state) {
    constexpr std::uint64_t pages = 1024;
    pn_node* node = nullptr;
    if (pn_node_open(spec_of(state.range(0)).c_str(), nullptr, &node) != 0) std::abort();
    pn_heap_options options;
    pn_heap_options_init(&options);
    options.node = node;
    options.address_bytes_max = 1 << 30;
    options.engine = PN_ENGINE_THREAD;
    pn_heap* heap = nullptr;
    void* buffer = nullptr;
    if (pn_heap_open(&options, &heap) != 0 || pn_buffer_alloc(heap, pages * PN_PAGE_BYTES, 0, &buffer) != 0) {
        state.SkipWithError(pn_last_message());
        return;
    }
    auto* const words = static_cast<std::uint32_t*>(buffer);
    for (std::uint32_t i = 0; i < pages * 1024; ++i) words[i] = i / 3 * 2654435761u >> (i % 2 * 20);
    std::uint64_t page = pages;
    for (auto _ : state) {
        if (page == pages) {
            state.PauseTiming();
            pn_demote(heap, buffer, pages * PN_PAGE_BYTES, nullptr);
            page = 0;
            state.ResumeTiming();
        }
        pn_promote(heap, static_cast<char*>(buffer) + page++ * PN_PAGE_BYTES, PN_PAGE_BYTES);
    }
    name_kind(state);
    pn_heap_close(heap);
    pn_node_close(node);
}

BENCHMARK(BM_Load)->Arg(0)->Arg(1);
BENCHMARK(BM_PlaceAndFree)->Arg(0)->Arg(1);
BENCHMARK(BM_Promote)->Arg(0)->Arg(1);

}  // namespace
