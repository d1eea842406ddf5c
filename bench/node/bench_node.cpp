// What the node adds: a guard around a load, a placement with its limits, a scrub, and whole promotions on
// memory that cannot go bad and on memory that can (a file on /dev/shm stands in for a device); and what a
// fault costs while another thread has the node scrub, or trim, as fast as it can.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <pnode/pnode.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "cxl/node.h"
#include "runtime/handles.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/os/wait.h"

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

// A heap on a node of its own, with a buffer of text.
class FarPages {
  public:
    static constexpr std::uint64_t pages = 1024;
    FarPages(std::int64_t kind, std::uint32_t engine) {
        if (pn_node_open(spec_of(kind).c_str(), nullptr, &node_) != 0) std::abort();
        pn_heap_options options;
        pn_heap_options_init(&options);
        options.node = node_;
        options.address_bytes_max = 1 << 30;
        options.engine = engine;
        if (pn_heap_open(&options, &heap_) != 0 ||
            pn_buffer_alloc(heap_, pages * PN_PAGE_BYTES, 0, &buffer_) != 0)
            return;
        auto* const words = static_cast<std::uint32_t*>(buffer_);
        for (std::uint32_t i = 0; i < pages * 1024; ++i) words[i] = i / 3 * 2654435761u >> (i % 2 * 20);
    }
    ~FarPages() {
        pn_heap_close(heap_);
        pn_node_close(node_);
    }
    FarPages(const FarPages&) = delete;
    FarPages& operator=(const FarPages&) = delete;

    bool is_open() const { return buffer_ != nullptr; }
    Node& node() { return *node_->node; }
    pn_heap* heap() { return heap_; }
    char* page(std::uint64_t index) { return static_cast<char*>(buffer_) + index * PN_PAGE_BYTES; }
    void demote() { pn_demote(heap_, buffer_, pages * PN_PAGE_BYTES, nullptr); }

  private:
    pn_node* node_ = nullptr;
    pn_heap* heap_ = nullptr;
    void* buffer_ = nullptr;
};

// pn_promote() of one far page at a time, out of as many as are demoted again outside of the measurement.
void BM_Promote(benchmark::State& state) {
    FarPages far(state.range(0), PN_ENGINE_THREAD);
    if (!far.is_open()) return state.SkipWithError(pn_last_message());
    std::uint64_t page = FarPages::pages;
    for (auto _ : state) {
        if (page == FarPages::pages) {
            state.PauseTiming();
            far.demote();
            page = 0;
            state.ResumeTiming();
        }
        pn_promote(far.heap(), far.page(page++), PN_PAGE_BYTES);
    }
    name_kind(state);
}

// What another thread does meanwhile, over and over. Computing is the control: it has a processor too, and
// nothing to do with the node.
enum class Beside : std::uint8_t { computing, scrubbing, trimming };

class Neighbour {
  public:
    Neighbour(Node& node, Beside what) : thread_([this, &node, what] { run(node, what); }) {}
    ~Neighbour() {
        done_ = true;
        thread_.join();
    }
    Neighbour(const Neighbour&) = delete;
    Neighbour& operator=(const Neighbour&) = delete;
    std::uint64_t rounds() const { return rounds_; }

  private:
    void run(Node& node, Beside what) {
        const pnode::os::SignalsBlocked signals;  // as all who place and free
        const std::vector<std::byte> blob(2048, std::byte{7});
        std::vector<BlobRef> placed;
        std::uint64_t sum = 0;
        for (; !done_; ++rounds_) {
            if (what == Beside::computing) {
                for (int i = 0; i < 1000; ++i) benchmark::DoNotOptimize(sum += sum * 7 + 1);
                continue;
            }
            // A scrub each; or 4 MiB of slabs that become empty, which trim() then gives back.
            const std::size_t blobs = what == Beside::scrubbing ? 1 : 2048;
            while (placed.size() < blobs) placed.push_back(node.place(blob));
            for (const BlobRef ref : placed) node.store().free(ref);
            placed.clear();
            if (what == Beside::trimming) node.store().trim();
        }
    }
    std::atomic<bool> done_{false};
    std::atomic<std::uint64_t> rounds_{0};
    std::thread thread_;  // last: it uses the others
};

double at_share(std::vector<std::uint64_t>& samples, double share) {
    const auto at =
        samples.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(samples.size() - 1));
    std::nth_element(samples.begin(), at, samples.end());
    return static_cast<double>(*at);
}

// One access to a far page at a time, served in place. `rounds` says that the neighbour was at it.
void BM_FaultBeside(benchmark::State& state) {
    constexpr const char* names[] = {"computing", "scrubbing", "trimming"};
    FarPages far(0, PN_ENGINE_INLINE);
    if (!far.is_open()) return state.SkipWithError(pn_last_message());
    std::vector<std::uint64_t> samples;
    const Neighbour neighbour(far.node(), static_cast<Beside>(state.range(0)));
    std::uint64_t page = FarPages::pages;
    for (auto _ : state) {
        if (page == FarPages::pages) {
            far.demote();
            page = 0;
        }
        const std::uint64_t begun_ns = pnode::os::now_ns();
        benchmark::DoNotOptimize(*const_cast<volatile char*>(far.page(page++)));
        const std::uint64_t ns = pnode::os::now_ns() - begun_ns;
        samples.push_back(ns);
        state.SetIterationTime(static_cast<double>(ns) * 1e-9);
    }
    state.SetLabel(names[state.range(0)]);
    state.counters["p50_ns"] = at_share(samples, 0.5);
    state.counters["p99_ns"] = at_share(samples, 0.99);
    state.counters["rounds"] = benchmark::Counter(static_cast<double>(neighbour.rounds()));
}

BENCHMARK(BM_Load)->Arg(0)->Arg(1);
BENCHMARK(BM_PlaceAndFree)->Arg(0)->Arg(1);
BENCHMARK(BM_Promote)->Arg(0)->Arg(1);
BENCHMARK(BM_FaultBeside)->Arg(0)->Arg(1)->Arg(2)->UseManualTime();

}  // namespace
