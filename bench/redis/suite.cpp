#include "bench/redis/suite.h"

#include <unistd.h>

#include <algorithm>
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
constexpr unsigned statistics_every_ms = 200;
constexpr std::uint64_t warm_up_rounds = 4;
constexpr int new_warm_ups = 3;                    // of a server that is new to the workload
constexpr const char* total_name = "pnode-total";  // the last one, if there

// The last whole JSON object of the file: it holds one, or one a line, and its writer may be in the middle of
// the next.
std::string last_statistics(const std::string& path) {
    std::ifstream file(path);
    std::string found;
    for (std::string line; std::getline(file, line);)
        if (nlohmann::json::accept(line)) found = line;
    return found;
}

// What a server took up to now.
struct Work {
    std::uint64_t requests = 0;  // that were asked in rounds
    std::uint64_t cpu_ns = 0;
    std::uint64_t misses = 0;
};

struct Variant {
    VariantResult result;
    std::unique_ptr<RedisServer> server;
    std::unique_ptr<LoadGenerator> clients;
    Work work_before;  // when the workload's rounds began
    std::uint64_t requests = 0;

    const std::string& name() const { return result.name; }
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
        for (Workload workload : workloads) {
            if (options_.selects_case(name_of(workload))) run_workload(workload);
        }
        for (Variant& variant : variants_) finish(variant);
        if (small_group_ && small_group_->helped_on() != 0)
            note("zram-small: " + std::to_string(small_group_->helped_on()) +
                 " times the kernel found nothing to reclaim and would have killed the server; it waited a "
                 "moment "
                 "instead");
        return std::move(report_);
    }

  private:
    void open_groups() {
        const std::string no_group = MemoryCgroup::why_unavailable(), no_swap = ZramSwap::why_unavailable();
        if (no_group.empty()) {
            open_group_.emplace("pnode-bench-redis-open");
            report_.group_version = open_group_->version();
        }
        if (!options_.selects_variant("zram-small")) return;
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
        const auto add_limited = [&](const char* name, std::uint64_t near_bytes) {
            try_to_add(name, under_pnode(name, {"--near", std::to_string(near_bytes)}), near_bytes, nullptr);
        };
        add_limited("pnode-near", 2 * report_.need_bytes + 64 * mebibyte);
        add_limited("pnode-small", near_bytes_);
        // A far limit that is not reached: every near page may keep its blob.
        const std::vector<std::string> limits = {"--near", std::to_string(near_bytes_), "--far",
                                                 std::to_string(2 * report_.need_bytes)};
        try_to_add("pnode-kept", under_pnode("pnode-kept", limits), near_bytes_, nullptr);
    }

    std::vector<std::string> under_pnode(const std::string& name,
                                         const std::vector<std::string>& limits) const {
        std::vector<std::string> wrapper = {options_.pnode,  "run",
                                            "--codec",       options_.codec,
                                            "--stats",       statistics_file(name),
                                            "--stats-every", std::to_string(statistics_every_ms)};
        wrapper.insert(wrapper.end(), limits.begin(), limits.end());
        wrapper.emplace_back("--");
        return wrapper;
    }

    // A limit of near and far together: what zram's pages may take and its compressed bytes do take, now. A
    // new server for each workload, for they take more the more was written to.
    void add_total() {
        if (!options_.selects_variant(total_name)) return;
        const auto zram = std::ranges::find(variants_, "zram-small", &Variant::name);
        if (zram == variants_.end() || !zram->clients) return;
        const ZramSwap::Usage usage = swap_->usage();
        if (usage.original_bytes == 0) return note("no pnode-total: nothing went to zram");
        VariantResult before;
        if (has_total()) {
            before = std::move(variants_.back().result);
            variants_.pop_back();
        }
        const std::uint64_t total = near_bytes_ + usage.memory_bytes;
        try_to_add(total_name, under_pnode(total_name, {"--total", std::to_string(total)}), total, nullptr);
        if (!has_total()) return;
        variants_.back().result.rounds = std::move(before.rounds);
        variants_.back().result.efforts = std::move(before.efforts);
    }
    bool has_total() const { return variants_.back().name() == total_name; }

    std::string statistics_file(const std::string& name) const {
        return directory_.path() + "/" + name + ".statistics";
    }

    void try_to_add(const std::string& name, const std::vector<std::string>& wrapper,
                    std::uint64_t limit_bytes, MemoryCgroup* group) {
        if (!options_.selects_variant(name)) return;
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
        variant.server = std::make_unique<RedisServer>(
            options_.redis_server, directory_.path() + "/" + std::to_string(servers_++), wrapper, group);
        LoadGenerator(variant.server->port(), 1, load_pipeline, dataset_).run(source_.load());
        variant.clients = std::make_unique<LoadGenerator>(variant.server->port(), options_.connections,
                                                          options_.pipeline, dataset_);
        variants_.push_back(std::move(variant));
    }

    // All rounds of one workload, so that what is near stays what this workload makes near; warmed up once,
    // and for long.
    void run_workload(Workload workload) {
        const auto seed = static_cast<std::uint64_t>(workload) << 32;
        const std::vector<Request> warm_up = source_.make(workload, warm_up_rounds * options_.requests, seed);
        const auto warm = [&](Variant& variant) {
            progress(std::string("warming up for ") + name_of(workload) + ": " + variant.name());
            ask(variant, warm_up);
        };
        for (Variant& variant : variants_) {
            if (variant.name() != total_name) warm(variant);
        }
        add_total();
        // The others have learnt which pages are in use since the first workload began.
        for (int time = 0; has_total() && time < new_warm_ups; ++time) warm(variants_.back());
        wait_for_statistics();
        for (Variant& variant : variants_) variant.work_before = work_of(variant);
        for (int round = 0; round < options_.rounds; ++round) run_round(workload, round, seed);
        wait_for_statistics();
        for (Variant& variant : variants_) count_work(variant, workload);
    }

    // Until the servers have written what they did up to now.
    static void wait_for_statistics() { usleep(3 * statistics_every_ms * 1000); }

    Work work_of(const Variant& variant) const {
        const RedisServer::Effort effort = variant.server->effort();
        const std::string statistics = last_statistics(statistics_file(variant.result.name));
        const std::uint64_t misses =
            statistics.empty() ? effort.major_faults
                               : nlohmann::json::parse(statistics).at("promotions").get<std::uint64_t>();
        return {variant.requests, effort.cpu_ns, misses};
    }

    std::uint64_t dram_bytes(const Variant& variant) const {
        const std::uint64_t swapped = variant.name().starts_with("zram") ? swap_->usage().memory_bytes : 0;
        return variant.server->memory().rss_bytes + swapped;
    }

    void count_work(Variant& variant, Workload workload) const {
        const Work before = variant.work_before, now = work_of(variant);
        if (!variant.clients || now.requests == before.requests) return;
        const auto requests = static_cast<double>(now.requests - before.requests);
        variant.result.efforts[workload] = {static_cast<double>(now.cpu_ns - before.cpu_ns) / 1e3 / requests,
                                            static_cast<double>(now.misses - before.misses) / requests,
                                            static_cast<double>(dram_bytes(variant))};
    }

    // Every variant is asked the same; who begins changes from round to round.
    void run_round(Workload workload, int round, std::uint64_t seed) {
        const auto first = static_cast<std::size_t>(round);
        progress(std::string(name_of(workload)) + ", round " + std::to_string(round + 1));
        const std::vector<Request> requests = source_.make(workload, options_.requests, seed + 1 + first);
        for (std::size_t turn = 0; turn < variants_.size(); ++turn) {
            Variant& variant = variants_[(first + turn) % variants_.size()];
            const Round round_result = ask(variant, requests);
            if (round_result.per_s <= 0) continue;
            variant.result.rounds[workload].push_back(round_result);
            variant.requests += requests.size();
        }
    }

    // Ends the run when a server fails, but for the one on zram: the kernel may kill what it cannot shrink
    // fast enough, and the others are worth measuring all the same. An empty round then.
    Round ask(Variant& variant, const std::vector<Request>& requests) {
        if (!variant.clients) return {};
        try {
            return variant.clients->run(requests);
        } catch (const Interrupted&) {
            throw;
        } catch (const std::runtime_error& error) {
            const std::string what =
                variant.result.name + ": " + error.what() + "; " + variant.server->condition();
            if (!variant.result.name.starts_with("zram")) throw std::runtime_error(what);
            note(what);
            variant.clients.reset();
            return {};
        }
    }

    void finish(Variant& variant) {
        if (!variant.clients) {
            report_.variants.push_back(variant.result);
            return;
        }
        progress("comparing values of " + variant.result.name);
        VariantResult& result = variant.result;
        const RedisServer::Memory memory = variant.server->memory();
        result.rss_bytes = memory.rss_bytes;
        result.anonymous_bytes = memory.anonymous_bytes;
        result.verified = verify_sample(variant.server->port(), dataset_, options_.sample);
        variant.clients.reset();
        variant.server.reset();  // at its end it writes the last statistics
        result.statistics = last_statistics(statistics_file(result.name));
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
    unsigned servers_ = 0;
    std::vector<Variant> variants_;
};

}  // namespace

RedisReport run_redis_suite(const RedisOptions& options) {
    return Suite(options).run();
}

}  // namespace pnode::bench
