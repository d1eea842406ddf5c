#include "bench/policy/simulate.h"

#include <algorithm>
#include <vector>

namespace pnode::bench {
namespace {

struct PageState {
    bool near = false;
    bool has_blob = false;  // far, or near and kept
    bool changed = false;   // since it came near
};

struct Pages {
    std::uint64_t near = 0, far = 0, kept = 0;
};

struct NearLimit {
    std::uint32_t near_pages_max, kept_pages_max;

    bool is_full(const Pages& pages) const { return pages.near >= near_pages_max; }
    bool keeps(const Pages& pages, unsigned) const { return pages.kept < kept_pages_max; }
};

struct TotalLimit {
    const SharedTotal& total;

    bool is_full(const Pages& pages) const {
        return pages.near != 0 &&
               (pages.near + 1) * page_bytes + (pages.far + pages.kept) * total.blob_bytes >
                   total.total_bytes;
    }
    bool keeps(const Pages& pages, unsigned level) const {
        return total.keeps({.near_pages_max = pages.near,
                            .far_pages = pages.far,
                            .blob_bytes = (pages.far + pages.kept) * total.blob_bytes,
                            .kept_bytes = pages.kept * total.blob_bytes,
                            .has_total = true},
                           level);
    }
};

template <class Memory>
class Simulation {
  public:
    Simulation(std::uint32_t pages, Memory memory, Policy& policy)
        : pages_(pages), memory_(memory), policy_(policy) {}

    void access(TraceAccess access) {
        ++counts.accesses;
        PageState& page = pages_[access.page];
        if (page.near)
            policy_.hit(access.page);
        else
            come(access.page, page);
        page.changed |= access.writes != 0;
        counts.near_pages_sum += now_.near;
    }

    Counts counts;

  private:
    void come(std::uint32_t number, PageState& page) {
        while (memory_.is_full(now_)) demote(policy_.choose());
        if (page.has_blob) {
            ++counts.promotions;
            --now_.far;
        }
        page.near = true;
        page.changed = !page.has_blob;  // a first touch writes
        page.has_blob = page.has_blob && memory_.keeps(now_, policy_.level_if_back(number));
        now_.kept += page.has_blob ? 1 : 0;
        ++now_.near;
        policy_.came(number, page.has_blob);
    }

    void demote(std::uint32_t number) {
        PageState& page = pages_[number];
        now_.kept -= page.has_blob ? 1 : 0;
        ++(page.has_blob && !page.changed ? counts.dropped : counts.compressed);
        policy_.left(number, page.changed);
        page.near = false;
        page.has_blob = true;
        --now_.near;
        ++now_.far;
    }

    std::vector<PageState> pages_;
    Pages now_;
    Memory memory_;
    Policy& policy_;
};

template <class Memory>
Counts replay(const Trace& trace, Memory memory, Policy& policy) {
    Simulation<Memory> simulation(trace.pages, memory, policy);
    const std::size_t warm = trace.accesses.size() / 2;
    for (std::size_t i = 0; i < warm; ++i) simulation.access(trace.accesses[i]);
    simulation.counts = {};
    const std::uint64_t looked_at = policy.looked_at();
    for (std::size_t i = warm; i < trace.accesses.size(); ++i) simulation.access(trace.accesses[i]);
    simulation.counts.looked_at = policy.looked_at() - looked_at;
    return simulation.counts;
}

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

double Counts::near_pages() const {
    return static_cast<double>(near_pages_sum) / static_cast<double>(accesses);
}

Counts simulate(const Trace& trace, std::uint32_t near_pages, std::uint32_t kept_pages_max, Policy& policy) {
    return replay(trace, NearLimit{near_pages, kept_pages_max}, policy);
}

std::uint32_t SharedTotal::near_pages_if_none_kept(std::uint32_t pages) const {
    const std::uint64_t all_blobs = pages * blob_bytes;
    return static_cast<std::uint32_t>((total_bytes - std::min(total_bytes, all_blobs)) /
                                      (page_bytes - blob_bytes));
}

Counts simulate(const Trace& trace, const SharedTotal& memory, Policy& policy) {
    return replay(trace, TotalLimit{memory}, policy);
}

}  // namespace pnode::bench
