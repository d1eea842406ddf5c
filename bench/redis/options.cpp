#include "bench/redis/options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>

#include "bench/common/chosen_names.h"
#include "bench/redis/dataset.h"

namespace pnode::bench {
namespace {

constexpr std::uint64_t mebibyte = 1 << 20;

// Ends with the exit code, or -1 to go on.
int parse(CLI::App& app, int count, char** arguments) {
    app.failure_message([](const CLI::App*, const CLI::Error& error) {
        return std::string("pnode-bench-redis: ") + error.what() + "\n";
    });
    try {
        app.parse(count, arguments);
        return -1;
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
}

std::string pnode_beside_this_program() {
    std::error_code ignored;
    return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / "pnode";
}

std::string check_case(const std::string& text) {
    std::vector<std::string> names;
    for (const Workload workload : workloads) names.emplace_back(name_of(workload));
    return check_beginning("case", text, names);
}

std::string check_variant(const std::string& text) {
    return check_beginning("variant", text,
                           {"pnode-near", "pnode-small", "pnode-kept", "zram-small", "pnode-total"});
}

}  // namespace

bool RedisOptions::selects_case(const std::string& name) const {
    return is_chosen(cases, name);
}

bool RedisOptions::selects_variant(const std::string& name) const {
    return is_chosen(variants, name);
}

nlohmann::ordered_json RedisOptions::as_json() const {
    return {{"dataset_bytes", dataset_bytes},
            {"repeat", repeat},
            {"rounds", rounds},
            {"requests", requests},
            {"connections", connections},
            {"pipeline", pipeline},
            {"near_percent", near_percent},
            {"codec", codec},
            {"cases", cases},
            {"variants", variants}};
}

bool parse_redis_options(int count, char** arguments, RedisOptions* options, int* exit_code) {
    CLI::App app(
        "Measures Redis plain, under pnode with nothing cold, under pnode with a small near limit, and on "
        "kernel "
        "zram in a memory control group at the same limit, side by side.");
    bool quick = false;
    CLI::Option* bytes =
        app.add_option("--bytes", options->dataset_bytes, "bytes of values to load, 1M to 1T (400M)")
            ->transform(CLI::AsSizeValue(false))
            ->check(CLI::Range(mebibyte, mebibyte << 20));
    CLI::Option* repeat =
        app.add_option("--repeat", options->repeat, "load the catalogue this often instead, 1 to 10000")
            ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{10'000}))
            ->excludes(bytes);
    CLI::Option* rounds =
        app.add_option("--rounds", options->rounds, "rounds the variants take turns in, 1 to 1000")
            ->check(CLI::Range(1, 1000))
            ->capture_default_str();
    CLI::Option* requests =
        app.add_option("--requests", options->requests,
                       "timed requests per workload, variant and round, 1000 to 1000000000")
            ->check(CLI::Range(std::uint64_t{1'000}, std::uint64_t{1'000'000'000}))
            ->capture_default_str();
    app.add_option("--connections", options->connections, "connections, 1 to 200")
        ->check(CLI::Range(1, 200))
        ->capture_default_str();
    app.add_option("--pipeline", options->pipeline, "requests a connection sends at once, 1 to 1000")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option("--near-percent", options->near_percent,
                   "the small near limit, in percent of the need, 10 to 100")
        ->check(CLI::Range(10, 100))
        ->capture_default_str();
    app.add_option("--codec", options->codec, "codec of the servers under pnode, as pnode run takes it")
        ->capture_default_str();
    app.add_option("--cases", options->cases,
                   "workloads or beginnings of their names, comma-separated; all by default")
        ->delimiter(',')
        ->check(check_case);
    app.add_option("--variants", options->variants,
                   "servers beside the plain one, or beginnings of their names, comma-separated; all by "
                   "default (pnode-total needs zram-small)")
        ->delimiter(',')
        ->check(check_variant);
    app.add_option("--sample", options->sample, "values compared in each server at the end, 1 to 1000000000")
        ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1'000'000'000}))
        ->capture_default_str();
    app.add_option("--pnode", options->pnode,
                   "path of the pnode command; by default the one beside this program")
        ->check(CLI::ExistingFile);
    app.add_option("--redis-server", options->redis_server, "name or path of the server")
        ->capture_default_str();
    app.add_flag("--quick", quick,
                 "the catalogue twice, 5 rounds, 20000 requests: shows that it works; numbers are rough");
    app.add_flag("--json", options->json, "one JSON object per line and nothing else on standard output");
    if ((*exit_code = parse(app, count, arguments)) >= 0) return false;
    if (quick && bytes->empty() && repeat->empty()) options->repeat = 2;
    if (quick && rounds->empty()) options->rounds = 5;
    if (quick && requests->empty()) options->requests = 20'000;
    if (options->pnode.empty()) options->pnode = pnode_beside_this_program();
    return true;
}

}  // namespace pnode::bench
