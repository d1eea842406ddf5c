#include "bench/fault/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace pnode::bench {
namespace {

std::string check_case(const std::string& text) {
    for (const std::string& name : fault_case_names)
        if (!text.empty() && name.starts_with(text)) return "";
    return "no case starts with '" + text +
           "'; there are fresh-random, fresh-sequential, far-random, far-sequential, " +
           "demote, demote-unchanged, demote-unchanged-again";
}

}  // namespace

bool FaultOptions::selects(const std::string& name) const {
    return cases.empty() || std::any_of(cases.begin(), cases.end(),
                                        [&](const std::string& prefix) { return name.starts_with(prefix); });
}

nlohmann::ordered_json FaultOptions::as_json() const {
    return {{"pages", pages}, {"rounds", rounds}, {"threads", threads}, {"cases", cases}};
}

bool parse_fault_options(int count, char** arguments, FaultOptions* options, int* exit_code) {
    CLI::App app(
        "Measures faults on fresh and far pages: the kernel, pnode's engines and kernel zram side by side.");
    bool quick = false;
    CLI::Option* pages = app.add_option("--pages", options->pages, "pages of each tier, 256 to 4194304")
                             ->check(CLI::Range(std::size_t{256}, std::size_t{4} << 20))
                             ->capture_default_str();
    CLI::Option* rounds =
        app.add_option("--rounds", options->rounds, "rounds the variants take turns in, 1 to 1000")
            ->check(CLI::Range(1, 1000))
            ->capture_default_str();
    app.add_option("--threads", options->threads, "thread counts, comma-separated, each 1 to 64")
        ->delimiter(',')
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    app.add_option("--cases", options->cases,
                   "cases or beginnings of their names, comma-separated; all by default")
        ->delimiter(',')
        ->check(check_case);
    app.add_flag("--quick", quick, "few pages and rounds (4096, 3): shows that it works; numbers are rough");
    app.add_flag("--json", options->json, "one JSON object per line and nothing else on standard output");
    app.failure_message([](const CLI::App*, const CLI::Error& error) {
        return std::string("pnode-bench-fault: ") + error.what() + "\n";
    });
    try {
        app.parse(count, arguments);
    } catch (const CLI::ParseError& error) {
        *exit_code = app.exit(error) == 0 ? 0 : 2;
        return false;
    }
    if (quick && pages->empty()) options->pages = 4096;
    if (quick && rounds->empty()) options->rounds = 3;
    return true;
}

}  // namespace pnode::bench
