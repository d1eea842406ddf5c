#include "bench/churn/options.h"

#include <CLI/CLI.hpp>

#include "bench/churn/accesses.h"
#include "bench/common/chosen_names.h"

namespace pnode::bench {
namespace {

std::string check_case(const std::string& text) {
    std::vector<std::string> names;
    for (const Mix mix : mixes) names.emplace_back(name_of(mix));
    return check_beginning("case", text, names);
}

void declare(CLI::App& app, ChurnOptions* options) {
    app.add_option("--pages", options->pages, "pages of each variant, 1024 to 4194304")
        ->check(CLI::Range(std::size_t{1024}, std::size_t{4} << 20))
        ->capture_default_str();
    app.add_option("--accesses", options->accesses, "timed accesses a round, 1000 to 1000000000")
        ->check(CLI::Range(std::size_t{1000}, std::size_t{1'000'000'000}))
        ->capture_default_str();
    app.add_option("--rounds", options->rounds, "rounds the variants take turns in, 1 to 1000")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option("--threads", options->threads, "thread counts, comma-separated, each 1 to 64")
        ->delimiter(',')
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    app.add_option("--near-percent", options->near_percents,
                   "near limits in percent of the pages, comma-separated, each 10 to 100")
        ->delimiter(',')
        ->check(CLI::Range(10, 100))
        ->capture_default_str();
    app.add_option("--cases", options->cases,
                   "cases or beginnings of their names, comma-separated; all by default")
        ->delimiter(',')
        ->check(check_case);
    app.add_flag("--json", options->json, "one JSON object per line and nothing else on standard output");
}

}  // namespace

bool ChurnOptions::selects(const std::string& name) const {
    return is_chosen(cases, name);
}

nlohmann::ordered_json ChurnOptions::as_json() const {
    return {{"pages", pages},     {"accesses", accesses},           {"rounds", rounds},
            {"threads", threads}, {"near_percents", near_percents}, {"cases", cases}};
}

bool parse_churn_options(int count, char** arguments, ChurnOptions* options, int* exit_code) {
    CLI::App app(
        "Measures access to more pages than the near limit lets stay: pnode's engines and kernel zram in a "
        "memory control group at the same limit, side by side.");
    bool quick = false;
    declare(app, options);
    app.add_flag("--quick", quick,
                 "few pages, accesses and rounds (4096, 10000, 3): shows that it works; numbers are rough");
    app.failure_message([](const CLI::App*, const CLI::Error& error) {
        return std::string("pnode-bench-churn: ") + error.what() + "\n";
    });
    try {
        app.parse(count, arguments);
    } catch (const CLI::ParseError& error) {
        *exit_code = app.exit(error) == 0 ? 0 : 2;
        return false;
    }
    const auto unset = [&](const char* name) { return quick && app.get_option(name)->empty(); };
    if (unset("--pages")) options->pages = 4096;
    if (unset("--accesses")) options->accesses = 10'000;
    if (unset("--rounds")) options->rounds = 3;
    return true;
}

}  // namespace pnode::bench
