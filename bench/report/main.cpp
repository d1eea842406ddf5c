// pnode-bench: runs the benchmarks one after another and writes what they found: the lines, an HTML page with
// charts, and the tables of a Markdown document. `pnode bench` is this.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "bench/common/interrupt.h"
#include "bench/report/aims.h"
#include "bench/report/page.h"
#include "bench/report/suites.h"
#include "bench/report/tables.h"

namespace {

using namespace pnode::bench;

struct BenchOptions {
    std::vector<std::string> suites;  // empty: all
    std::string from;                 // lines to read instead of running anything
    std::string out = "pnode-bench";
    std::string document;
    bool quick = false;
};

std::string read_file(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot read " + path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

void write_file(const std::string& path, const std::string& text) {
    std::ofstream file(path);
    file << text << std::flush;
    if (!file) throw std::runtime_error("cannot write " + path);
    std::fprintf(stderr, "pnode bench: wrote %s\n", path.c_str());
}

std::string folder_of_this_program() {
    return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

bool selected(const BenchOptions& options, const std::string& suite) {
    return options.suites.empty() ||
           std::find(options.suites.begin(), options.suites.end(), suite) != options.suites.end();
}

// A suite that fails is said and left out: the others are worth having. `*failed` counts.
std::vector<Run> measure(const BenchOptions& options, int* failed) {
    std::vector<Run> runs;
    for (const Suite& suite : suites()) {
        if (!selected(options, suite.name)) continue;
        std::fprintf(stderr, "pnode bench: %s\n", suite.name.c_str());
        try {
            for (Run& run : run_suite(suite, folder_of_this_program(), options.quick))
                runs.push_back(std::move(run));
        } catch (const Interrupted&) {
            throw;
        } catch (const std::runtime_error& error) {
            std::fprintf(stderr, "pnode bench: no %s: %s\n", suite.name.c_str(), error.what());
            ++*failed;
        }
    }
    return runs;
}

void print(const Table& table) {
    std::printf("%s\n%s\n", table.title.c_str(), markdown(table).c_str());
}

int run(const BenchOptions& options) {
    int failed = 0;
    const std::vector<Run> runs =
        options.from.empty() ? measure(options, &failed) : parse_runs(read_file(options.from));
    for (const Run& each : runs) {
        std::printf("%s\n\n", conditions(each).c_str());
        for (const Table& table : tables_of(each)) print(table);
    }
    if (const Table aims = aims_of(runs); !aims.rows.empty()) print(aims);
    write_file(options.out + ".jsonl", lines_of(runs));
    write_file(options.out + ".html", html_page(runs));
    if (!options.document.empty())
        write_file(options.document, with_tables(read_file(options.document), runs));
    return failed == 0 ? 0 : 1;
}

bool parse(int count, char** arguments, BenchOptions* options, int* exit_code) {
    CLI::App app("Runs the benchmarks and writes tables and a page with charts.");
    app.name("pnode bench");
    std::vector<std::string> names;
    for (const Suite& suite : suites()) names.push_back(suite.name);
    app.add_option("--suites", options->suites, "suites, comma-separated; all by default")
        ->delimiter(',')
        ->check(CLI::IsMember(names));
    app.add_flag("--quick", options->quick, "seconds or minutes instead of an hour; numbers are rough");
    app.add_option("--from", options->from,
                   "run nothing: read the lines of benchmarks (--json) from this file");
    app.add_option("--out", options->out, "write to this name with .jsonl and .html")->capture_default_str();
    app.add_option("--document", options->document,
                   "also replace the tables in this Markdown file, between <!-- pnode bench SUITE --> and "
                   "<!-- end -->")
        ->check(CLI::ExistingFile);
    app.failure_message([](const CLI::App*, const CLI::Error& error) {
        return std::string("pnode bench: ") + error.what() + "\n";
    });
    try {
        app.parse(count, arguments);
        return true;
    } catch (const CLI::ParseError& error) {
        *exit_code = app.exit(error) == 0 ? 0 : 2;
        return false;
    }
}

}  // namespace

int main(int count, char** arguments) {
    BenchOptions options;
    int exit_code = 0;
    if (!parse(count, arguments, &options, &exit_code)) return exit_code;
    catch_interrupts();
    try {
        return run(options);
    } catch (const Interrupted& interrupt) {
        std::fprintf(stderr, "pnode bench: %s\n", interrupt.what());
        return 128 + interrupt.signal_number;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "pnode bench: %s\n", error.what());
        return 1;
    }
}
