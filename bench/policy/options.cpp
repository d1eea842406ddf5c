#include "bench/policy/options.h"

#include <CLI/CLI.hpp>

#include "bench/policy/trace.h"

namespace pnode::bench {
namespace {

void declare(CLI::App& app, PolicyOptions* options) {
    app.add_option("--pages", options->pages, "pages of made-up traces, 100 to 1000000")
        ->check(CLI::Range(100u, 1'000'000u))
        ->capture_default_str();
    app.add_option("--accesses", options->accesses,
                   "accesses a trace, 1000 to 100000000; the first half warms up and is not counted")
        ->check(CLI::Range(std::size_t{1000}, std::size_t{100'000'000}))
        ->capture_default_str();
    app.add_option("--near-percent", options->near_percents,
                   "near limits in percent of the pages, comma-separated, each 1 to 99")
        ->delimiter(',')
        ->check(CLI::Range(1, 99))
        ->capture_default_str();
    app.add_option("--kept-percent", options->kept_percents,
                   "how many of the near pages may keep their blob, comma-separated, each 0 to 100 (29: what "
                   "is kept without a far limit)")
        ->delimiter(',')
        ->check(CLI::Range(0, 100))
        ->capture_default_str();
    app.add_option("--traces", options->traces, "made-up traces, comma-separated; all by default")
        ->delimiter(',')
        ->check(CLI::IsMember(trace_names()));
    app.add_option("--trace-file", options->files,
                   "recorded traces instead: output of valgrind --tool=lackey --trace-mem=yes; - is standard "
                   "input");
    app.add_flag("--levels", options->levels, "compare parameters of the levels instead of policies");
    app.add_option("--total-percent", options->total_percents,
                   "compare which near pages keep their blobs instead, where near pages and all blobs "
                   "together may take so much, in percent of the pages, comma-separated, each 1 to 99")
        ->delimiter(',')
        ->check(CLI::Range(1, 99))
        ->excludes("--levels");
    app.add_option("--blob-percent", options->blob_percent,
                   "what a blob takes of its page, with --total-percent, 1 to 90")
        ->check(CLI::Range(1, 90))
        ->capture_default_str();
    app.add_flag("--json", options->json, "one JSON object per line and nothing else on standard output");
}

}  // namespace

nlohmann::ordered_json PolicyOptions::as_json() const {
    return {{"pages", pages},
            {"accesses", accesses},
            {"near_percents", near_percents},
            {"kept_percents", kept_percents},
            {"total_percents", total_percents},
            {"blob_percent", blob_percent},
            {"traces", traces},
            {"trace_files", files}};
}

bool parse_policy_options(int count, char** arguments, PolicyOptions* options, int* exit_code) {
    CLI::App app("Replays page traces under eviction policies and prices what each would do.");
    declare(app, options);
    app.failure_message([](const CLI::App*, const CLI::Error& error) {
        return std::string("pnode-bench-policy: ") + error.what() + "\n";
    });
    try {
        app.parse(count, arguments);
    } catch (const CLI::ParseError& error) {
        *exit_code = app.exit(error) == 0 ? 0 : 2;
        return false;
    }
    for (const int total_percent : options->total_percents) {
        if (total_percent > options->blob_percent) continue;
        fprintf(
            stderr,
            "pnode-bench-policy: --total-percent %d has no room for near pages: more than --blob-percent\n",
            total_percent);
        *exit_code = 2;
        return false;
    }
    if (options->traces.empty() && options->files.empty()) options->traces = trace_names();
    return true;
}

}  // namespace pnode::bench
