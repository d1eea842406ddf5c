#include "bench/codec/options.h"

#include <CLI/CLI.hpp>
#include <stdexcept>

#include "bench/codec/corpus.h"
#include "bench/codec/variant.h"

namespace pnode::bench {
namespace {

std::string check_codec(const std::string& codec) {
    try {
        all_variants({codec}, {4096}, false);
        return "";
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
}

}  // namespace

nlohmann::ordered_json CodecOptions::as_json() const {
    return {{"inputs", inputs},       {"corpora", corpora},           {"codecs", codecs},
            {"block_kib", block_kib}, {"dictionaries", dictionaries}, {"pages", pages},
            {"rounds", rounds}};
}

bool parse_codec_options(int count, char** arguments, CodecOptions* options, int* exit_code) {
    CLI::App app(
        "Stores data every way a tier can, and says what it takes, what a fault costs, and what to use. "
        "Kernel zram beside it.");
    app.name("pnode bench codec");
    bool quick = false, json = false, csv = false, no_zram = false, no_dictionaries = false;
    options->codecs = default_codecs();
    app.add_option(
        "INPUT", options->inputs,
        "files, or numbers of running processes, whose private pages are read; none: built-in corpora");
    app.add_option("--corpora", options->corpora, "built-in corpora, comma-separated; all by default")
        ->delimiter(',')
        ->check(CLI::IsMember(corpus_names()));
    app.add_option("--codecs", options->codecs,
                   "codecs as a heap takes them, comma-separated; \"same\": same-filled pages only")
        ->delimiter(',')
        ->check(check_codec)
        ->capture_default_str();
    app.add_option("--block-kib", options->block_kib, "block sizes in KiB, comma-separated")
        ->delimiter(',')
        ->check(CLI::IsMember(std::vector<unsigned>{4, 8, 16, 32, 64}))
        ->capture_default_str();
    CLI::Option* pages =
        app.add_option("--pages", options->pages, "pages of each corpus at most, 64 to 4194304")
            ->check(CLI::Range(std::size_t{64}, std::size_t{4} << 20))
            ->capture_default_str();
    CLI::Option* rounds = app.add_option("--rounds", options->rounds, "rounds of faults, 1 to 1000")
                              ->check(CLI::Range(1, 1000))
                              ->capture_default_str();
    app.add_flag("--no-dictionaries", no_dictionaries, "nothing with a trained dictionary");
    app.add_flag("--no-zram", no_zram, "no kernel zram beside it");
    app.add_flag("--quick", quick, "few pages and rounds (1024, 1): shows that it works; numbers are rough");
    CLI::Option* as_json =
        app.add_flag("--json", json, "one JSON object per line and nothing else on standard output");
    app.add_flag("--csv", csv, "the rows as comma-separated values")->excludes(as_json);
    app.failure_message([](const CLI::App*, const CLI::Error& error) {
        return std::string("pnode bench codec: ") + error.what() + "\n";
    });
    try {
        app.parse(count, arguments);
    } catch (const CLI::ParseError& error) {
        *exit_code = app.exit(error) == 0 ? 0 : 2;
        return false;
    }
    if (quick && pages->empty()) options->pages = 1024;
    if (quick && rounds->empty()) options->rounds = 1;
    if (options->inputs.empty() && options->corpora.empty()) options->corpora = corpus_names();
    options->dictionaries = !no_dictionaries;
    options->zram = !no_zram;
    options->output = json ? CodecOutput::json : csv ? CodecOutput::csv : CodecOutput::table;
    return true;
}

}  // namespace pnode::bench
