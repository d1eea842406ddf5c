#include "bench/fault/options.h"

#include <CLI/CLI.hpp>

#include "bench/common/chosen_names.h"

namespace pnode::bench {
namespace {

std::string check_case(const std::string& text) {
    return check_beginning("case", text, fault_case_names);
}

}  // namespace

bool FaultOptions::selects(const std::string& name) const {
    return is_chosen(cases, name);
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
