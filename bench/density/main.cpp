// pnode-bench-density: the same pages in kernel zram and in heaps of several codecs, in one run: what they
// take, everything counted, and what it costs to touch one. docs/performance.md says how it measures.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "bench/common/catalogue.h"
#include "bench/common/interrupt.h"
#include "bench/common/samples.h"
#include "bench/common/zram_swap.h"
#include "bench/density/live_pages.h"
#include "bench/fault/pages.h"
#include "bench/fault/tier.h"

namespace pnode::bench {
namespace {

struct Options {
    std::string file;
    int process = 0;
    std::vector<std::string> codecs = {"lz4", "zstd", "auto:100"};
    std::size_t pages_max = 65536;
    int settle_s = 60;
};

struct Row {
    std::string name;
    std::size_t pages = 0;  // that left
    double bytes = 0;       // that they take
    std::string parts{};
    Round touch{};
};

std::string load(const Options& options) {
    if (options.process != 0) return live_pages(options.process);
    if (options.file.empty()) {
        std::string text;
        for (const Record& record : load_catalogue().records) text += record.text;
        return text;
    }
    std::ifstream file(options.file, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + options.file);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Until the recompressor has found nothing to do for a second and a half.
void wait_until_settled(const HeapTier& tier, int seconds) {
    int still = 0;
    std::uint64_t before = 0;
    for (int tenths = 0; tenths < 10 * seconds && still < 15; ++tenths) {
        usleep(100'000);
        throw_if_interrupted();
        const std::uint64_t now = tier.stats().recompressed;
        still = now == before && now != 0 ? still + 1 : 0;
        before = now;
    }
}

// Slabs whole, dictionaries and kept blobs are in far_bytes; page words are 8 bytes a page, the store's
// tables 0.4 % of what is stored (cxl/README.md).
Row measure(HeapTier& tier, Contents& contents, std::size_t pages, const Options& options) {
    contents.fill(tier.memory());
    for (std::size_t page = 0; page < pages; page += demote_run_pages)
        tier.demote(page, std::min(demote_run_pages, pages - page));
    const bool is_auto = tier.codec.starts_with("auto") || tier.codec.find(",dict") != std::string::npos;
    const pn_stats_t at_first = tier.stats();
    if (is_auto) wait_until_settled(tier, options.settle_s);
    const pn_stats_t stats = tier.stats();
    std::vector<std::size_t> far = tier.far_pages();
    Row row = {.name = tier.codec, .pages = far.size()};
    row.bytes = static_cast<double>(stats.far_bytes) * 1.004 + 8.0 * static_cast<double>(far.size());
    std::ostringstream parts;
    if (is_auto)
        parts << stats.recompressed << " recompressed in " << stats.recompression_cpu_ns / 1'000'000
              << " ms of CPU, from " << at_first.far_bytes / 1024 << " KiB; " << stats.dictionaries
              << " dictionaries, " << stats.dictionary_bytes / 1024 << " KiB";
    const cxl::StoreCounters stored = tier.stored();
    parts << (is_auto ? "; " : "") << "blobs " << stored.blob_bytes / 1024 << " KiB, slots "
          << stored.slot_bytes / 1024 << " KiB, slabs " << stored.physical_bytes / 1024 << " KiB";
    row.parts = parts.str();
    row.touch = timed_touch(tier.memory(), std::move(far), Pattern::random, Access::read, 1, 1);
    contents.verify(tier.memory());
    return row;
}

Row measure(ZramTier& tier, const ZramSwap& swap, Contents& contents, std::size_t pages) {
    contents.fill(tier.memory());
    tier.demote(0, pages);
    std::vector<std::size_t> far = tier.far_pages();
    Row row = {.name = "zram", .pages = far.size()};
    row.bytes = static_cast<double>(swap.usage().memory_bytes);
    row.touch = timed_touch(tier.memory(), std::move(far), Pattern::random, Access::read, 1, 1);
    contents.verify(tier.memory());
    return row;
}

// Pages that would not leave count as what they are.
void print(const std::vector<Row>& rows, std::size_t pages) {
    double zram = 0;
    std::printf("%zu pages, %.1f MiB\n%-12s %9s %9s %8s %8s %9s %9s\n", pages,
                static_cast<double>(pages * page_bytes) / 1048576.0, "codec", "far pages", "MiB", "density",
                "to zram", "p50 us", "p99 us");
    for (const Row& row : rows) {
        const double taken = row.bytes + static_cast<double>((pages - row.pages) * page_bytes);
        const double density = static_cast<double>(pages * page_bytes) / taken;
        if (row.name == "zram") zram = density;
        std::printf("%-12s %9zu %9.2f %8.2f %8.2f %9.2f %9.2f  %s\n", row.name.c_str(), row.pages,
                    taken / 1048576.0, density, zram == 0 ? 0 : density / zram, row.touch.p50_ns / 1e3,
                    row.touch.p99_ns / 1e3, row.parts.c_str());
    }
}

void run(const Options& options) {
    std::optional<ZramSwap> swap;  // first: making it forks
    if (const std::string reason = ZramSwap::why_unavailable(); reason.empty())
        swap.emplace(std::uint64_t{2} * options.pages_max * page_bytes);
    else
        std::printf("no row for kernel zram: %s\n", reason.c_str());
    const std::string text = load(options);
    const std::size_t pages = std::min(text.size() / page_bytes, options.pages_max);
    if (pages == 0) throw std::runtime_error("not one page to compress");
    std::vector<Row> rows;
    if (swap) {
        ZramTier tier(*swap, pages);
        Contents contents(text, pages);
        rows.push_back(measure(tier, *swap, contents, pages));
    }
    for (const std::string& codec : options.codecs) {
        HeapTier tier(PN_ENGINE_INLINE, codec, pages);
        Contents contents(text, pages);
        rows.push_back(measure(tier, contents, pages, options));
    }
    print(rows, pages);
}

}  // namespace
}  // namespace pnode::bench

int main(int count, char** arguments) {
    pnode::bench::Options options;
    CLI::App app(
        "The same pages in kernel zram and in heaps of several codecs: what they take, and what a fault "
        "costs.");
    app.add_option("file", options.file, "pages to compress; without: the package catalogue");
    app.add_option("--pid", options.process, "or the heap of this process");
    app.add_option("--codecs", options.codecs, "codecs, one after another")->capture_default_str();
    app.add_option("--pages", options.pages_max, "at most")->capture_default_str();
    app.add_option("--settle", options.settle_s, "seconds for recompression, at most")->capture_default_str();
    CLI11_PARSE(app, count, arguments);
    return pnode::bench::run_driver("pnode-bench-density", [&] { pnode::bench::run(options); });
}
