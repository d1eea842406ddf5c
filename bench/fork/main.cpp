// pnode-bench-fork: what fork() costs under the preload library. docs/performance.md says how it measures.
#include <CLI/CLI.hpp>

#include "bench/common/interrupt.h"
#include "bench/common/own_process.h"
#include "bench/fork/subject.h"
#include "bench/fork/suite.h"

int main(int count, char** arguments) {
    using namespace pnode::bench;
    CLI::App app(
        "Measures fork(): a plain process, one under pnode with nothing far, and one with far memory, in "
        "turns.");
    ForkOptions options;
    options.pnode = pnode_beside_this_program();
    std::size_t subject_bytes = 0;
    std::size_t settle_bytes = 0;
    app.add_option("--near", options.near_bytes, "resident bytes of each process, 1M to 64G (256M)")
        ->transform(CLI::AsSizeValue(false))
        ->check(CLI::Range(std::size_t{1} << 20, std::size_t{64} << 30));
    app.add_option("--far-percent", options.far_percent, "how much of its memory is far, 1 to 95")
        ->check(CLI::Range(1, 95))
        ->capture_default_str();
    app.add_option("--rounds", options.rounds, "forks of each process, 1 to 10000")
        ->check(CLI::Range(1, 10'000))
        ->capture_default_str();
    app.add_flag("--json", options.json, "one JSON object per line and nothing else on standard output");
    app.add_option("--pnode", options.pnode, "the pnode command (the one beside this program)");
    app.add_option("--subject", subject_bytes)->group("");  // how it starts itself
    app.add_option("--settle", settle_bytes)->group("");
    CLI11_PARSE(app, count, arguments);
    int exit_code = 0;
    const int failed = run_driver("pnode-bench-fork", [&] {
        if (subject_bytes != 0) {
            exit_code = run_subject(subject_bytes, settle_bytes);
        } else {
            run_fork_suite(options);
        }
    });
    return failed != 0 ? failed : exit_code;
}
