#include "bench/churn/suite.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>

#include "bench/churn/worker.h"
#include "bench/common/catalogue.h"
#include "bench/common/interrupt.h"
#include "bench/common/memory_cgroup.h"
#include "bench/common/zram_swap.h"

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::uint64_t steady_wall_ns = 250'000'000;
// A worker's own buffers, which a control group counts and a heap does not: the sequence, and latencies
// twice.
constexpr std::uint64_t own_bytes_per_access = 12;
constexpr int restarts_max = 20;
constexpr std::uint64_t warm_up_seed = 1'000'000;
constexpr const char* equal_total_name = "inline=";

struct Variant {
    std::string name;
    std::string engine;
    std::unique_ptr<Worker> worker;  // null: `reason` says why not
    std::string reason;
};

class Suite {
  public:
    Suite(const ChurnOptions& options, ChurnReport& report) : options_(options), report_(report) {
        open_kernel();
        const Catalogue catalogue = load_catalogue();
        for (const Record& record : catalogue.records) text_ += record.text + "\n\n";
        report_.note("pages hold " + catalogue.source);
        add("thread", "thread");
        add("inline", "inline");
        add("zram", "zram");
        add("inline+", "inline+");
        add("inline*", "inline*");
        add("thread*", "thread*");
        add(equal_total_name, "inline");
        add("floor", floor_of_reads);
        add("floor", floor_of_writes);
        add(floor_with_codec, floor_with_codec);
    }

    void run() {
        for (const int near_percent : options_.near_percents)
            for (const Mix mix : mixes)
                for (const int threads : options_.threads)
                    if (options_.selects(name_of(mix))) run_case(near_percent, mix, threads);
    }

  private:
    // Before any thread, and before the workers: the group has to be there for the one it holds.
    void open_kernel() {
        no_kernel_ = ZramSwap::why_unavailable();
        if (no_kernel_.empty()) no_kernel_ = MemoryCgroup::why_unavailable();
        if (!no_kernel_.empty()) return;
        swap_.emplace(2 * options_.pages * page_bytes);
        group_.emplace("pnode-bench-churn");
    }

    void add(const std::string& name, const std::string& engine) {
        Variant& variant = variants_.emplace_back(Variant{name, engine, nullptr, ""});
        if (is_kernel(variant) || is_of_equal_total(variant)) variant.reason = no_kernel_;
        if (!variant.reason.empty()) return;
        start(variant);
        obey(variant, Order{});
        if (variant.worker && is_kernel(variant)) measure_group();
    }

    // What fits into the near limit of the others does not into what a total leaves.
    static bool takes_part(const Variant& variant, Mix mix) {
        if (variant.engine == floor_of_reads || variant.engine == floor_with_codec)
            return mix == Mix::read_uniform || mix == Mix::read_zipf;
        if (variant.engine == floor_of_writes) return mix == Mix::write_uniform || mix == Mix::write_zipf;
        return mix != Mix::steady || !is_of_equal_total(variant);
    }
    static bool is_of_equal_total(const Variant& variant) { return variant.name == equal_total_name; }

    static bool is_kernel(const Variant& variant) { return variant.engine == "zram"; }

    void start(Variant& variant) {
        variant.worker = std::make_unique<Worker>(variant.engine, options_.pages, text_);
        if (!is_kernel(variant)) return;
        group_->lift_limit();
        group_->add(variant.worker->process());
    }

    // What the group is charged beside the pages: the worker itself and its page tables.
    void measure_group() {
        const std::uint64_t charged = group_->usage().charged_bytes, range = options_.pages * page_bytes;
        group_extra_bytes_ =
            (charged > range ? charged - range : 0) + own_bytes_per_access * options_.accesses;
    }

    void warm_up(Variant& variant, Mix mix, int threads) {
        for (std::uint64_t done = 0, seed = warm_up_seed; done < 3 * options_.pages;
             done += options_.accesses)
            obey(variant, order_of(mix, threads, options_.accesses, seed++));
    }

    // As much for near and far together as zram's pages and its compressed bytes are.
    Subject::Limits limits_of(const Variant& variant) const {
        if (!is_of_equal_total(variant)) return {.near_bytes = near_bytes_};
        return {.near_bytes = options_.pages * page_bytes,
                .total_bytes = near_bytes_ + swap_->usage().memory_bytes};
    }

    // Nothing when the variant cannot go on; from then on its rows say why. A lost byte ends the benchmark.
    std::optional<Answer> obey(Variant& variant, const Order& order) {
        while (variant.worker) try {
                return variant.worker->obey(order);
            } catch (const Interrupted&) {
                throw;
            } catch (const WorkerEnded& ended) {
                give_up(variant, ended.what());
                if (is_kernel(variant) && restarts_++ < restarts_max) restart(variant);
            } catch (const std::runtime_error& error) {
                if (order.kind == Order::verify) throw std::runtime_error(variant.name + ": " + error.what());
                give_up(variant, error.what());
            }
        return std::nullopt;
    }

    static void give_up(Variant& variant, const std::string& reason) {
        variant.reason = reason;
        variant.worker.reset();
    }

    // The out-of-memory killer ends a process whose pages were all used lately (memory_cgroup.h). Another
    // one, with new contents, is brought to where it was; if it is ended at that, whoever gave the order
    // finds out.
    void restart(Variant& variant) {
        start(variant);
        try {
            variant.worker->obey(Order{});
            group_->set_limit(near_bytes_ + group_extra_bytes_);
            variant.worker->obey(order_of(mix_, threads_, options_.accesses, warm_up_seed));
            variant.reason.clear();
        } catch (const WorkerEnded&) {
        }
        report_.note("kernel zram's process was ended (out of memory, says the kernel) and started anew");
    }

    void limit(Variant& variant) {
        if (!obey(variant, {.kind = Order::limit, .limits = limits_of(variant)})) return;
        if (is_kernel(variant)) group_->set_limit(near_bytes_ + group_extra_bytes_);
    }

    Order order_of(Mix mix, int threads, std::uint64_t accesses, std::uint64_t seed) const {
        return {.kind = Order::run,
                .mix = mix,
                .threads = threads,
                .accesses = accesses,
                .seed = seed,
                .limits = {.near_bytes = near_bytes_}};
    }

    void run_case(int near_percent, Mix mix, int threads) {
        near_bytes_ = options_.pages * page_bytes / 100 * static_cast<std::uint64_t>(near_percent);
        mix_ = mix;
        threads_ = threads;
        // Warmed up until what is near is what this mix makes near, and what can be learnt of it is learnt.
        for (Variant& variant : variants_) {
            if (!takes_part(variant, mix)) continue;
            if (!variant.worker) continue;
            limit(variant);
            warm_up(variant, mix, threads);
        }
        for (int round = 0; round < options_.rounds; ++round)
            for (std::size_t turn = 0; turn < variants_.size(); ++turn) {
                Variant& variant = variants_[(turn + static_cast<std::size_t>(round)) % variants_.size()];
                if (!takes_part(variant, mix)) continue;
                Order order = order_of(mix, threads, options_.accesses, static_cast<std::uint64_t>(round));
                if (mix == Mix::steady) order.wall_ns_min = steady_wall_ns;
                if (const auto answer = obey(variant, order))
                    report_.add(key(variant, near_percent, mix, threads), measurement(variant, *answer));
                throw_if_interrupted();
            }
        for (Variant& variant : variants_) {
            if (!takes_part(variant, mix)) continue;
            if (!variant.reason.empty())
                report_.miss(key(variant, near_percent, mix, threads), variant.reason);
            obey(variant, {.kind = Order::verify});
        }
    }

    ChurnKey key(const Variant& variant, int near_percent, Mix mix, int threads) const {
        return {name_of(mix), near_percent, threads, variant.name};
    }

    ChurnMeasurement measurement(const Variant& variant, const Answer& answer) const {
        ChurnMeasurement one{answer.round, answer.cpu_ns, answer.background_cpu_percent,
                             answer.usage.near_bytes, answer.usage.far_bytes};
        if (is_kernel(variant)) {
            one.near_bytes = group_->usage().charged_bytes;
            one.far_bytes = swap_->usage().memory_bytes;
        }
        return one;
    }

    const ChurnOptions& options_;
    ChurnReport& report_;
    std::string text_;
    std::string no_kernel_;
    std::optional<ZramSwap> swap_;  // these two before the workers: they end after them
    std::optional<MemoryCgroup> group_;
    std::uint64_t group_extra_bytes_ = 0;
    // Of the case that is running.
    std::uint64_t near_bytes_ = 0;
    Mix mix_ = Mix::read_uniform;
    int threads_ = 1;
    int restarts_ = 0;
    std::vector<Variant> variants_;
};

}  // namespace

void run_churn_suite(const ChurnOptions& options, ChurnReport& report) {
    Suite(options, report).run();
}

}  // namespace pnode::bench
