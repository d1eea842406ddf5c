// pnode-bench-malloc: what a program that allocates pays for pnode with nothing cold. docs/performance.md
// says how it measures.
#include <CLI/CLI.hpp>

#include "bench/common/chosen_names.h"
#include "bench/common/interrupt.h"
#include "bench/common/own_process.h"
#include "bench/malloc/suite.h"
#include "bench/malloc/worker.h"

int main(int count, char** arguments) {
    using namespace pnode::bench;
    CLI::App app(
        "Measures malloc() and free(): under pnode with nothing cold, with jemalloc preloaded, and libc's, "
        "in turns.");
    MallocOptions options;
    options.pnode = pnode_beside_this_program();
    options.jemalloc = "libjemalloc.so.2";
    bool is_worker = false;
    app.add_option("--live", options.live_bytes, "bytes allocated at a time, 16M to 16G (128M)")
        ->transform(CLI::AsSizeValue(false))
        ->check(CLI::Range(std::size_t{16} << 20, std::size_t{16} << 30));
    app.add_option("--allocations", options.allocations,
                   "of each thread in its turn, 10000 to 1000000000 (large: 1 in 256 of them)")
        ->check(CLI::Range(10'000, 1'000'000'000))
        ->capture_default_str();
    app.add_option("--processes", options.processes, "of each allocator, one after another, 1 to 1000")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option("--rounds", options.rounds, "of each process, which they take turns in, 1 to 1000")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option("--threads", options.threads, "thread counts, comma-separated, each 1 to 64")
        ->delimiter(',')
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    app.add_option("--workloads", options.workloads,
                   "workloads or beginnings of their names, comma-separated; all by default")
        ->delimiter(',')
        ->check([](const std::string& beginning) {
            return check_beginning("workload", beginning, workload_names());
        });
    app.add_flag("--json", options.json, "one JSON object per line and nothing else on standard output");
    app.add_option("--pnode", options.pnode, "the pnode command (the one beside this program)");
    app.add_option("--jemalloc", options.jemalloc, "the library to compare with")->capture_default_str();
    app.add_flag("--worker", is_worker)->group("");  // how it starts itself
    CLI11_PARSE(app, count, arguments);
    return run_driver("pnode-bench-malloc", [&] {
        if (is_worker) {
            run_worker();
        } else {
            run_malloc_suite(options);
        }
    });
}
