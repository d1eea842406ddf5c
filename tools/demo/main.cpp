// pnode-demo: Debian's package catalogue in Debian's redis-server, with 40 % of the memory its heap needs.
//
// A plain redis-server is loaded first: it says what the heap needs and what is near-only speed. Then the
// same load goes to one under `pnode run`, everything is read back and compared, and both answer the same
// random GETs in turns. Exit code 0: every byte was right and the limits were kept. 1: not so, or it could
// not run. 128 + N: ended by signal N.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <climits>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "tools/demo/catalogue.h"
#include "tools/demo/failure.h"
#include "tools/demo/redis_client.h"
#include "tools/demo/report.h"
#include "tools/demo/samples.h"
#include "tools/demo/server.h"
#include "tools/demo/workload.h"

namespace pnode::demo {
namespace {

constexpr std::uint64_t kMebibyte = 1ull << 20;

struct Options {
    std::string pnode;  // path; empty: the one beside this program
    std::string redis = "redis-server";
    std::string catalogue = "timeout 60 apt-cache dumpavail 2>/dev/null";
    unsigned near_percent = 40;
    std::uint64_t records_max = ULLONG_MAX;
    std::uint64_t seed = 1;
    unsigned rounds = 5;
    std::uint64_t requests = 50000;  // a round and server
    bool quick = false;
};

void say(const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
}

std::string own_folder() {
    char path[PATH_MAX];
    const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
    const std::string self(path, length > 0 ? static_cast<std::size_t>(length) : 0);
    return self.substr(0, self.rfind('/'));
}

std::string required_program(const std::string& name, const std::string& cure) {
    std::string path = find_program(name);
    if (path.empty()) throw Failure(name + " is missing or cannot be run: " + cure);
    return path;
}

// Does `work` with a server; should that go away meanwhile, the failure says how it ended.
template <typename Work>
void with(Server& server, const std::string& label, Work work) {
    try {
        work();
    } catch (const ConnectionLost& lost) {
        throw Failure("the " + label + " redis-server went away (" + lost.what() + "): " + server.autopsy());
    }
}

std::uint64_t resident_bytes_of(const Server& server) {
    const auto bytes = resident_bytes(server.pid());
    if (!bytes)
        throw Failure(
            "cannot read /proc/PID/smaps_rollup: a kernel of 4.14 or later with /proc mounted is needed");
    return *bytes;
}

class Demonstration {
  public:
    explicit Demonstration(const Options& options)
        : options_(options),
          redis_(required_program(options.redis, "`apt-get install redis-server` (as root)")),
          pnode_(required_program(options.pnode.empty() ? own_folder() + "/pnode" : options.pnode,
                                  "build it (`./quickstart`), or name it with --pnode PATH")) {}

    // Whether every byte was right and the limits were kept.
    bool run() {
        read_records();
        Server near_only("near-only", {redis_}, folder_.path());
        with(near_only, "near-only", [&] { measure_near_only(near_only); });

        const Limits limits{near_limit_bytes_};
        Server tiered("tiered", tiered_command(), folder_.path());
        Sampler sampler(statistics_path(), tiered.pid(), limits);
        with(tiered, "tiered", [&] { fill_and_compare(tiered); });
        take_turns(near_only, tiered);
        return report(sampler.finish());
    }

  private:
    std::string statistics_path() const { return folder_.path() + "/statistics.json"; }

    void read_records() {
        const Catalogue catalogue = read_catalogue(options_.catalogue, options_.records_max, options_.seed);
        records_ = catalogue.records;
        if (!catalogue.remark.empty()) say(catalogue.remark);
        say("catalogue: " + grouped(records_.size()) + " records, " + mebibytes(dataset_bytes(records_)));
    }

    void measure_near_only(const Server& server) {
        const std::uint64_t before = resident_bytes_of(server);
        load(server.port(), records_);
        resident_near_only_ = resident_bytes_of(server);
        heap_bytes_ = resident_near_only_ - std::min(before, resident_near_only_);
        near_limit_bytes_ = std::max(heap_bytes_ * options_.near_percent / 100, kMebibyte) / 4096 * 4096;
        say("near-only: plain redis-server needs " + mebibytes(heap_bytes_) + " of heap for them");
    }

    std::vector<std::string> tiered_command() const {
        const std::uint64_t node_bytes =
            2 * std::max(heap_bytes_, 32 * kMebibyte);  // room enough even if nothing compressed
        const std::uint64_t activation_bytes =
            near_limit_bytes_ / 2;  // the limit is kept from there on, so well below it
        return {pnode_,
                "run",
                "--near",
                std::to_string(near_limit_bytes_ / 1024) + "K",
                "--activation",
                std::to_string(activation_bytes / 1024) + "K",
                "--node",
                "memory:" + std::to_string(node_bytes / kMebibyte) + "M",
                "--stats",
                statistics_path(),
                "--stats-every",
                "100",
                "--",
                redis_};
    }

    void fill_and_compare(const Server& tiered) {
        say("tiered: the same under `pnode run` with a near limit of " + mebibytes(near_limit_bytes_));
        load(tiered.port(), records_);
        read_back(tiered.port(), records_, comparison_);
        say("tiered: " + grouped(comparison_.compared) + " records read back, " +
            grouped(comparison_.different) + " different");
    }

    // In turns, the first one alternating, so that what else this machine does falls on both alike.
    void take_turns(Server& near_only, Server& tiered) {
        std::vector<double> near_rates, tiered_rates;
        const auto near_turn = [&](const Stretch& stretch) {
            with(near_only, "near-only", [&] {
                near_rates.push_back(random_gets(near_only.port(), records_, stretch, comparison_));
            });
        };
        const auto tiered_turn = [&](const Stretch& stretch) {
            with(tiered, "tiered",
                 [&] { tiered_rates.push_back(random_gets(tiered.port(), records_, stretch, comparison_)); });
        };
        say("random GETs: " + std::to_string(options_.rounds) +
            " rounds in turns, 16 connections, no pipelining");
        for (unsigned round = 0; round < options_.rounds; ++round) {
            constexpr double kSecondsMax = 2;  // of each turn
            const Stretch stretch{options_.seed + round, options_.requests, kSecondsMax};
            if (round % 2 == 0) near_turn(stretch);
            tiered_turn(stretch);
            if (round % 2 != 0) near_turn(stretch);
        }
        near_only_per_s_ = median(near_rates);
        tiered_per_s_ = median(tiered_rates);
    }

    bool report(const Judgement& judgement) const {
        Result result = {};
        result.records = records_.size();
        result.dataset_bytes = dataset_bytes(records_);
        result.heap_bytes = heap_bytes_;
        result.near_limit_bytes = near_limit_bytes_;
        result.near_percent = options_.near_percent;
        if (judgement.last()) result.statistics = judgement.last()->numbers;
        result.resident_peak_bytes = judgement.resident_peak();
        result.resident_near_only_bytes = resident_near_only_;
        result.near_only_per_s = near_only_per_s_;
        result.tiered_per_s = tiered_per_s_;
        result.compared = comparison_.compared;
        result.different = comparison_.different;
        say("\n" + table(result));
        return verdict(judgement);
    }

    bool verdict(const Judgement& judgement) const {
        const std::string complaint = judgement.complaint();
        if (comparison_.different > 0) {
            say("FAILED: " + grouped(comparison_.different) + " records came back different, the first is " +
                comparison_.first_different_key);
        }
        if (!complaint.empty()) say("FAILED: " + complaint);
        if (comparison_.different > 0 || !complaint.empty()) return false;
        say("Every byte was right, and the limits were kept at each of " + grouped(judgement.samples()) +
            " samples.");
        return true;
    }

    const Options options_;
    const std::string redis_;
    const std::string pnode_;
    const TemporaryFolder folder_;
    std::vector<Record> records_;
    std::uint64_t heap_bytes_ = 0;
    std::uint64_t resident_near_only_ = 0;
    std::uint64_t near_limit_bytes_ = 0;
    Comparison comparison_;
    double near_only_per_s_ = 0;
    double tiered_per_s_ = 0;
};

void declare(CLI::App& app, Options& options) {
    app.add_option("--pnode", options.pnode, "the pnode program (default: the one beside this program)");
    app.add_option("--redis", options.redis, "the redis-server program")->capture_default_str();
    app.add_option("--catalogue", options.catalogue, "shell command that prints the catalogue")
        ->capture_default_str();
    app.add_option("--near-percent", options.near_percent, "near limit, in percent of what the heap needs")
        ->check(CLI::Range(1, 100))
        ->capture_default_str();
    app.add_option("--records", options.records_max, "use only the first N records")
        ->check(CLI::Range(1, 100000000));
    app.add_option("--seed", options.seed, "which random GETs are made")->capture_default_str();
    app.add_flag("--quick", options.quick, "a small part: 20000 records and short turns");
}

void shorten(Options& options) {
    options.records_max = std::min<std::uint64_t>(options.records_max, 20000);
    options.rounds = 3;
    options.requests = 5000;
}

}  // namespace
}  // namespace pnode::demo

int main(int argc, char** argv) {
    using namespace pnode::demo;
    try {
        CLI::App app("Debian's package catalogue in redis-server, with a part of the memory its heap needs",
                     "pnode-demo");
        Options options;
        declare(app, options);
        CLI11_PARSE(app, argc, argv);
        if (options.quick) shorten(options);
        catch_signals();
        return Demonstration(options).run() ? 0 : 1;
    } catch (const Interrupted& interrupted) {
        std::fprintf(stderr, "pnode-demo: interrupted; its servers are ended\n");
        return 128 + interrupted.signal;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "pnode-demo: %s\n", error.what());
        return 1;
    }
}
