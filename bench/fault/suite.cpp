#include "bench/fault/suite.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "bench/common/catalogue.h"
#include "bench/common/interrupt.h"
#include "bench/common/zram_swap.h"
#include "bench/fault/floor_tier.h"
#include "bench/fault/pages.h"
#include "bench/fault/tier.h"

namespace pnode::bench {
namespace {

constexpr double far_share_expected = 0.9;
constexpr int fresh_turns =
    6;  // a round; a pass is over so soon that one may fall wholly into somebody's noise
constexpr std::pair<Pattern, const char*> patterns[] = {{Pattern::random, "random"},
                                                        {Pattern::sequential, "sequential"}};

// A tier with text in it, from round to round.
struct Filled {
    Filled(std::unique_ptr<Tier> of, const std::string& text, std::size_t pages)
        : tier(std::move(of)), contents(text, pages) {
        contents.fill(tier->memory());
    }
    std::unique_ptr<Tier> tier;
    Contents contents;
};

class Suite {
  public:
    Suite(const FaultOptions& options, FaultReport& report) : options_(options), report_(report) {
        std::iota(all_pages_.begin(), all_pages_.end(), std::size_t{0});
        if (wants_far()) open_zram();
        Catalogue catalogue = load_catalogue();
        for (const Record& record : catalogue.records) text_ += record.text + "\n\n";
        report_.note("pages hold " + catalogue.source);
        if (wants_far()) open_tiers();
        if (options.selects("fresh-random") || options.selects("fresh-sequential")) find_engines();
    }

    void run() {
        for (int round = 0; round < options_.rounds; ++round)
            for (int threads : options_.threads)
                for (auto [pattern, name] : patterns) {
                    fresh(round, threads, pattern, std::string("fresh-") + name);
                    far(round, threads, pattern, std::string("far-") + name);
                }
    }

  private:
    bool wants_far() const {
        return std::any_of(fault_case_names.begin(), fault_case_names.end(), [&](const std::string& name) {
            return !name.starts_with("fresh") && options_.selects(name);
        });
    }

    // Before any heap: making it forks, and no thread may be there yet.
    void open_zram() {
        if (std::string reason = ZramSwap::why_unavailable(); !reason.empty())
            report_.note("no column for kernel zram: " + reason);
        else
            swap_.emplace(2 * options_.pages * page_bytes);
    }

    void open_tiers() {
        for (auto [engine, name] : engines)
            for (const char* codec : {"lz4", "zstd"}) try {
                    add_tier(std::make_unique<HeapTier>(engine, codec, options_.pages));
                } catch (const Interrupted&) {
                    throw;
                } catch (const std::runtime_error& error) {
                    report_.note(std::string("no rows for the ") + name + " engine with " + codec + ": " +
                                 error.what());
                }
        for (const auto how : {FloorTier::Served::inline_by_signal, FloorTier::Served::by_handlers})
            for (const char* codec : {"-", "lz4"}) add_floor(how, codec, 1);
        add_floor(FloorTier::Served::inline_by_signal, "lz4", FloorTier::run_pages_max);
        if (swap_) add_tier(std::make_unique<ZramTier>(*swap_, options_.pages));
    }

    void add_floor(FloorTier::Served how, const char* codec, std::size_t run_pages) {
        try {
            add_tier(std::make_unique<FloorTier>(how, codec, options_.pages, run_pages));
        } catch (const std::system_error& error) {
            report_.note(std::string("no rows for a floor: ") + error.what());
        }
    }

    void add_tier(std::unique_ptr<Tier> tier) {
        tiers_.push_back(std::make_unique<Filled>(std::move(tier), text_, options_.pages));
    }

    void find_engines() {
        for (auto engine : engines) try {
                HeapTier trial(engine.first, "lz4", 1);
                usable_engines_.push_back(engine);
            } catch (const std::runtime_error& error) {
                report_.note(std::string("no rows for fresh pages of the ") + engine.second +
                             " engine: " + error.what());
            }
    }

    // First touches: anonymous memory against heaps nothing was taken out of, each new for this measurement.
    void fresh(int round, int threads, Pattern pattern, const std::string& name) {
        if (!options_.selects(name)) return;
        const auto touch = [&](std::byte* memory) {
            return timed_touch(memory, all_pages_, pattern, Access::write, threads,
                               static_cast<std::uint64_t>(round));
        };
        const auto kernel = [&] {
            report_.add(name, threads, "kernel", "-",
                        touch(AnonymousMemory(options_.pages * page_bytes).data()));
        };
        // Whoever goes second gets pages the first has just given back: they take turns at that too.
        for (int turn = 0; turn < fresh_turns; ++turn) {
            if (turn % 2 == 0) kernel();
            for (auto [engine, engine_name] : usable_engines_) {
                HeapTier heap(engine, "lz4", options_.pages);
                report_.add(name, threads, engine_name, "-", touch(heap.memory()));
            }
            if (turn % 2 == 1) kernel();
        }
    }

    void far(int round, int threads, Pattern pattern, const std::string& name) {
        if (!wants_far()) return;
        for (std::size_t turn = 0; turn < tiers_.size(); ++turn) {
            Filled& filled = *tiers_[(turn + static_cast<std::size_t>(round)) % tiers_.size()];
            if (pattern == Pattern::random && filled.tier->serves_runs_only()) continue;
            demote_changed(filled, threads);
            if (options_.selects(name)) touch_far(filled, round, threads, pattern, name);
            filled.contents.verify(filled.tier->memory());  // also brings back what is still far
            if (pattern == Pattern::sequential && filled.tier->keeps_blobs())
                demote_unchanged(filled, threads);
        }
    }

    // Of what was only read; then of what was only read in the stay before, too.
    void demote_unchanged(Filled& filled, int threads) {
        if (!options_.selects("demote-unchanged-again")) return;  // who selects the first selects both
        for (const char* const name : {"demote-unchanged", "demote-unchanged-again"}) {
            const Round result = timed_demote(*filled.tier, options_.pages, threads);
            if (options_.selects(name)) report(filled, name, threads, result);
            filled.contents.verify(filled.tier->memory());
        }
    }

    void demote_changed(Filled& filled, int threads) {
        filled.contents.verify_and_change(filled.tier->memory());
        const Round result = timed_demote(*filled.tier, options_.pages, threads);
        if (options_.selects("demote") && filled.tier->compresses())
            report(filled, "demote", threads, result);
    }

    void touch_far(Filled& filled, int round, int threads, Pattern pattern, const std::string& name) {
        std::vector<std::size_t> pages = filled.tier->far_pages();
        const double share = static_cast<double>(pages.size()) / static_cast<double>(options_.pages);
        if (share < far_share_expected) {
            char text[120];
            snprintf(text, sizeof text, "%s with %s: not all of its pages went far; only far pages are timed",
                     filled.tier->engine.c_str(), filled.tier->codec.c_str());
            report_.note(text);
        }
        report(filled, name, threads,
               timed_touch(filled.tier->memory(), std::move(pages), pattern, Access::read, threads,
                           static_cast<std::uint64_t>(round)));
    }

    void report(const Filled& filled, const std::string& name, int threads, const Round& result) {
        report_.add(name, threads, filled.tier->engine, filled.tier->codec, result);
    }

    static constexpr std::pair<std::uint32_t, const char*> engines[] = {{PN_ENGINE_THREAD, "thread"},
                                                                        {PN_ENGINE_INLINE, "inline"}};
    const FaultOptions& options_;
    FaultReport& report_;
    std::vector<std::size_t> all_pages_ = std::vector<std::size_t>(options_.pages);
    std::string text_;
    std::optional<ZramSwap> swap_;  // before the tiers: it ends after them
    std::vector<std::unique_ptr<Filled>> tiers_;
    std::vector<std::pair<std::uint32_t, const char*>> usable_engines_;
};

}  // namespace

void run_fault_suite(const FaultOptions& options, FaultReport& report) {
    Suite(options, report).run();
}

}  // namespace pnode::bench
