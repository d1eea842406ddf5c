// pnode-bench-scale: does a page cost the same in a large heap? docs/performance.md says how it measures.
#include <CLI/CLI.hpp>

#include "bench/common/interrupt.h"
#include "bench/scale/suite.h"

int main(int count, char** arguments) {
    using namespace pnode::bench;
    CLI::App app(
        "Measures what touching pages costs in heaps of different sizes, in turns; all far but a few.");
    ScaleOptions options;
    bool quick = false;
    const CLI::Range sizes(std::size_t{64} << 20, std::size_t{64} << 30);
    app.add_option("--dense", options.dense_bytes,
                   "heaps all of whose pages are used: their sizes, 64M to 64G (1G,8G)")
        ->delimiter(',')
        ->transform(CLI::AsSizeValue(false))
        ->check(sizes);
    app.add_option("--sparse", options.sparse_bytes,
                   "addresses of a heap of which little is used, up to 8T; 0: none (1T)")
        ->transform(CLI::AsSizeValue(false))
        ->check(CLI::Range(std::size_t{0}, std::size_t{8} << 40));
    app.add_option("--sparse-pages", options.sparse_pages, "how many pages of it are used, 1024 to 4194304")
        ->check(CLI::Range(1024, 4'194'304))
        ->capture_default_str();
    app.add_option("--near", options.near_bytes, "near limit of each heap, 1M to 1G (64M)")
        ->transform(CLI::AsSizeValue(false))
        ->check(CLI::Range(std::size_t{1} << 20, std::size_t{1} << 30));
    app.add_option("--touches", options.touches, "of each kind, a round, 1000 to 10000000")
        ->check(CLI::Range(1000, 10'000'000))
        ->capture_default_str();
    app.add_option("--rounds", options.rounds, "that the heaps take turns in, 1 to 1000")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_flag("--quick", quick, "small heaps and few touches: shows that it works");
    app.add_flag("--json", options.json, "one JSON object per line and nothing else on standard output");
    CLI11_PARSE(app, count, arguments);
    if (quick) {
        options.dense_bytes = {std::uint64_t{64} << 20, std::uint64_t{256} << 20};
        options.sparse_pages = std::uint64_t{1} << 14;
        options.near_bytes = std::uint64_t{16} << 20;
        options.touches = 20'000;
        options.rounds = 3;
    }
    return run_driver("pnode-bench-scale", [&] { run_scale_suite(options); });
}
