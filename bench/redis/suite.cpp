#include "bench/redis/suite.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "bench/common/interrupt.h"
#include "bench/common/temporary_directory.h"
#include "bench/common/zram_swap.h"
#include "bench/redis/load_generator.h"
#include "bench/redis/server.h"

namespace pnode::bench {
namespace {

constexpr std::uint64_t mebibyte = 1 << 20;
constexpr int load_pipeline = 64;

// The last whole JSON object of the file: it holds one, or one a line, and its writer may be in the middle of
// the next.
std::string last_statistics(const std::string& path) {
    std::ifstream file(path);
    std::string found;
    for (std::string line; std::getline(file, line);)
        if (nlohmann::json::accept(line)) found = line;
    return found;
}

struct Variant {
    VariantResult result;
    std::unique_ptr<RedisServer> server;
    std::unique_ptr<LoadGenerator> clients;
};

class Suite {
  public:
    explicit Suite(const RedisOptions& options)
        : options_(options),
          dataset_(load_catalogue(), options.repeat, options.dataset_bytes),
          source_(dataset_.size()) {
        report_.dataset = dataset_.source();
        report_.keys = dataset_.size();
        report_.value_bytes = dataset_.value_bytes();
        report_.near_percent = options.near_percent;
    }

    RedisReport run() {
        open_groups();
        add("plain", {}, 0, open_group_ ? &*open_group_ : nullptr);
        measure_need();
        add_pnode();
        add_zram();
        for (int round = 0; round < options_.rounds; ++round) run_round(round);
        for (Variant& variant : variants_) finish(variant);
        return std::move(report_);
    }

  private:
    void open_groups() {
        const std::string no_group = MemoryCgroup::why_unavailable(), no_swap = ZramSwap::why_unavailable();
        if (no_group.empty()) {
            open_group_.emplace("pnode-bench-redis-open");
            report_.group_version = open_group_->version();
        }
        if (!no_group.empty() || !no_swap.empty()) {
            note("no kernel zram: " + (no_swap.empty() ? no_group : no_swap));
            return;
        }
        small_group_.emplace("pnode-bench-redis-small");
        swap_.emplace(3 * dataset_.value_bytes() + 256 * mebibyte);
    }

    // What anonymous memory the server needs, and what a group charges it besides (page tables, sockets, page
    // cache).
    void measure_need() {
        const RedisServer::Memory memory = variants_.front().server->memory();
        report_.need_bytes = memory.anonymous_bytes;
        report_.need_rss_bytes = memory.rss_bytes;
        if (open_group_) {
            const MemoryCgroup::Usage usage = open_group_->usage();
            if (usage.charged_bytes > memory.anonymous_bytes)
                report_.group_extra_bytes = usage.charged_bytes - memory.anonymous_bytes;
        }
        near_bytes_ = report_.need_bytes / 100 * static_cast<std::uint64_t>(options_.near_percent);
    }

    void add_pnode() {
        if (access(options_.pnode.c_str(), X_OK) != 0) {
            note("no pnode: there is no " + options_.pnode);
            return;
        }
        const std::uint64_t near_ample = 2 * report_.need_bytes + 64 * mebibyte;
        try_to_add("pnode-near", under_pnode("pnode-near", near_ample), near_ample, nullptr);
        try_to_add("pnode-small", under_pnode("pnode-small", near_bytes_), near_bytes_, nullptr);
    }

    std::vector<std::string> under_pnode(const std::string& name, std::uint64_t near_bytes) const {
        return {
            options_.pnode,  "run", "--near", std::to_string(near_bytes), "--stats", statistics_file(name),
            "--stats-every", "200", "--"};
    }

    std::string statistics_file(const std::string& name) const {
        return directory_.path() + "/" + name + ".statistics";
    }

    void try_to_add(const std::string& name, const std::vector<std::string>& wrapper,
                    std::uint64_t limit_bytes, MemoryCgroup* group) {
        try {
            add(name, wrapper, limit_bytes, group);
        } catch (const Interrupted&) {
            throw;
        } catch (const std::runtime_error& error) {
            note("no " + name + ": " + error.what());
        }
    }

    // The same anonymous bytes as pnode's near limit, and what the group charges besides: both tiers get as
    // much for pages.
    void add_zram() {
        if (!swap_) return;
        const std::uint64_t limit = near_bytes_ + report_.group_extra_bytes;
        small_group_->set_limit(limit);
        try_to_add("zram-small", {}, limit, &*small_group_);
    }

    void add(const std::string& name, const std::vector<std::string>& wrapper, std::uint64_t limit_bytes,
             MemoryCgroup* group) {
        progress("loading " + name);
        Variant variant;
        variant.result.name = name;
        variant.result.limit_bytes = limit_bytes;
        variant.server = std::make_unique<RedisServer>(options_.redis_server, directory_.path() + "/" + name,
                                                       wrapper, group);
        LoadGenerator(variant.server->port(), 1, load_pipeline, dataset_).run(source_.load());
        variant.clients = std::make_unique<LoadGenerator>(variant.server->port(), options_.connections,
                                                          options_.pipeline, dataset_);
        variants_.push_back(std::move(variant));
    }

    // Every variant is asked the same; who begins changes from round to round.
    void run_round(int round) {
        const auto first = static_cast<std::size_t>(round);
        for (Workload workload : workloads) {
            const auto seed = static_cast<std::uint64_t>(round) * 2 * std::size(workloads) +
                              static_cast<std::uint64_t>(workload) * 2;
            const std::vector<Request> warm_up = source_.make(workload, options_.requests / 4, seed);
            const std::vector<Request> timed = source_.make(workload, options_.requests, seed + 1);
            for (std::size_t turn = 0; turn < variants_.size(); ++turn) {
                Variant& variant = variants_[(first + turn) % variants_.size()];
                progress("round " + std::to_string(round + 1) + ", " + name_of(workload) + ", " +
                         variant.result.name);
                variant.clients->run(warm_up);
                variant.result.rounds[workload].push_back(variant.clients->run(timed));
            }
        }
    }

    void finish(Variant& variant) {
        progress("comparing values of " + variant.result.name);
        VariantResult& result = variant.result;
        const RedisServer::Memory memory = variant.server->memory();
        result.rss_bytes = result.dram_bytes = memory.rss_bytes;
        result.anonymous_bytes = memory.anonymous_bytes;
        if (result.name.starts_with("zram")) result.dram_bytes += swap_->usage().memory_bytes;
        result.statistics = last_statistics(statistics_file(result.name));
        result.verified = verify_sample(variant.server->port(), dataset_, options_.sample);
        report_.variants.push_back(result);
    }

    void note(const std::string& sentence) { report_.notes.push_back(sentence); }

    static void progress(const std::string& what) { fprintf(stderr, "%s\n", what.c_str()); }

    const RedisOptions& options_;
    // In this order: servers end before what they are in.
    TemporaryDirectory directory_{"pnode-bench-redis"};
    std::optional<ZramSwap> swap_;
    std::optional<MemoryCgroup> open_group_, small_group_;
    Dataset dataset_;
    RequestSource source_;
    RedisReport report_;
    std::uint64_t near_bytes_ = 0;
    std::vector<Variant> variants_;
};

}  // namespace

RedisReport run_redis_suite(const RedisOptions& options) {
    return Suite(options).run();
}

}  // namespace pnode::bench
