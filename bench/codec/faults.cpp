#include "bench/codec/faults.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "bench/common/interrupt.h"
#include "bench/fault/pages.h"
#include "bench/fault/tier.h"

namespace pnode::bench {
namespace {

struct Contender {
    std::string codec;
    std::unique_ptr<Tier> tier;
    std::vector<Round> rounds;
};

// Few faults say nothing of a percentile.
constexpr std::size_t far_pages_min = 64;

}  // namespace

FaultCosts measure_faults(compress::Bytes corpus, const std::vector<std::string>& codecs,
                          const ZramSwap* swap, int rounds) {
    const std::size_t pages = std::min(corpus.size() / page_bytes, fault_pages_max);
    FaultCosts costs;
    std::vector<Contender> contenders;
    for (const std::string& codec : codecs) try {
            contenders.push_back({codec, std::make_unique<HeapTier>(PN_ENGINE_INLINE, codec, pages), {}});
        } catch (const std::runtime_error& error) {
            costs.why_none[codec] = error.what();
        }
    if (swap != nullptr) contenders.push_back({"zram", std::make_unique<ZramTier>(*swap, pages), {}});
    for (Contender& each : contenders) std::memcpy(each.tier->memory(), corpus.data(), pages * page_bytes);
    for (int round = 0; round < rounds; ++round)
        for (std::size_t turn = 0; turn < contenders.size(); ++turn) {
            throw_if_interrupted();
            Contender& each = contenders[(turn + static_cast<std::size_t>(round)) % contenders.size()];
            each.tier->demote(0, pages);
            std::vector<std::size_t> far = each.tier->far_pages();
            if (far.size() >= far_pages_min)
                each.rounds.push_back(timed_touch(each.tier->memory(), std::move(far), Pattern::random,
                                                  Access::read, 1, static_cast<std::uint64_t>(round)));
            if (std::memcmp(each.tier->memory(), corpus.data(), pages * page_bytes) != 0)
                throw std::runtime_error("a page came back with other bytes than it left with (" +
                                         each.codec + ")");
        }
    for (const Contender& each : contenders) {
        if (each.rounds.empty())
            costs.why_none[each.codec] = "hardly a page of it goes far";
        else
            costs.by_codec[each.codec] = median(each.rounds);
    }
    return costs;
}

}  // namespace pnode::bench
