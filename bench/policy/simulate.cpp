#include "bench/policy/simulate.h"

#include <vector>

namespace pnode::bench {
namespace {

struct PageState {
    bool near = false;
    bool has_blob = false;  // far, or near and kept
    bool changed = false;   // since it came near
};

class Simulation {
  public:
    Simulation(std::uint32_t pages, std::uint32_t near_pages_max, std::uint32_t kept_pages_max,
               Policy& policy)
        : pages_(pages), near_max_(near_pages_max), kept_max_(kept_pages_max), policy_(policy) {}

    void access(TraceAccess access) {
        ++counts.accesses;
        PageState& page = pages_[access.page];
        if (page.near)
            policy_.hit(access.page);
        else
            come(access.page, page);
        page.changed |= access.writes != 0;
    }

    Counts counts;

  private:
    void come(std::uint32_t number, PageState& page) {
        if (near_ == near_max_) demote(policy_.choose());
        if (page.has_blob) ++counts.promotions;
        page.near = true;
        page.changed = !page.has_blob;  // a first touch writes
        page.has_blob = page.has_blob && kept_ < kept_max_;
        kept_ += page.has_blob ? 1 : 0;
        ++near_;
        policy_.came(number, page.has_blob);
    }

    void demote(std::uint32_t number) {
        PageState& page = pages_[number];
        kept_ -= page.has_blob ? 1 : 0;
        ++(page.has_blob && !page.changed ? counts.dropped : counts.compressed);
        policy_.left(number, page.changed);
        page.near = false;
        page.has_blob = true;
        --near_;
    }

    std::vector<PageState> pages_;
    std::uint32_t near_ = 0, near_max_, kept_ = 0, kept_max_;
    Policy& policy_;
};

}  // namespace

double Counts::miss_ratio() const {
    return static_cast<double>(promotions) / static_cast<double>(accesses);
}

double Counts::us_per_access(const EventCosts& costs) const {
    const double ns = static_cast<double>(promotions) * costs.promote_ns +
                      static_cast<double>(dropped) * (costs.take_out_ns + costs.drop_ns) +
                      static_cast<double>(compressed) * (costs.take_out_ns + costs.compress_ns) +
                      static_cast<double>(looked_at) * costs.look_ns;
    return ns / static_cast<double>(accesses) / 1e3;
}

Counts simulate(const Trace& trace, std::uint32_t near_pages, std::uint32_t kept_pages_max, Policy& policy) {
    Simulation simulation(trace.pages, near_pages, kept_pages_max, policy);
    const std::size_t warm = trace.accesses.size() / 2;
    for (std::size_t i = 0; i < warm; ++i) simulation.access(trace.accesses[i]);
    simulation.counts = {};
    const std::uint64_t looked_at = policy.looked_at();
    for (std::size_t i = warm; i < trace.accesses.size(); ++i) simulation.access(trace.accesses[i]);
    simulation.counts.looked_at = policy.looked_at() - looked_at;
    return simulation.counts;
}

}  // namespace pnode::bench
