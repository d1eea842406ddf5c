// An upper bound of what a device has used, which holds between its answers.
//
// A device that compresses inline says how much is used when it is asked, and the answer is true of some
// moment between question and answer. Placements go on meanwhile. So each is counted twice: as begun, at its
// worst case, before its first store; as done, after its last. What was done before the question is in the
// answer; everything else is counted as begun; so
//
//     used now  <=  answer + begun now - done before the question
//
// at every later moment, for what is freed only makes it less. A placement that would pass the total is
// refused. Every answer's bound holds for ever, therefore the loosest one decides.
//
// Thread rule: any thread.
#pragma once

#include <atomic>
#include <cstdint>

namespace pnode::cxl {

class CapacityBound {
  public:
    // Nothing is used yet.
    explicit CapacityBound(std::uint64_t total_bytes) : total_bytes_(total_bytes), begun_max_(total_bytes) {}

    // False: it might not fit, by what is known; ask the device, and once more.
    bool begin(std::uint64_t worst_bytes) noexcept {
        const std::uint64_t begun = begun_.fetch_add(worst_bytes) + worst_bytes;
        if (begun <= begun_max_.load()) return true;
        begun_.fetch_sub(worst_bytes);
        return false;
    }
    // Sequentially consistent, as all here: what is done is in the device before it is counted as done.
    void end(std::uint64_t worst_bytes) noexcept { done_.fetch_add(worst_bytes); }

    // Before the device is asked, and with its answer. An answer that cannot be true is not believed: false.
    std::uint64_t question() const noexcept { return done_.load(); }
    bool answer(std::uint64_t question, std::uint64_t used_bytes) noexcept {
        if (used_bytes > total_bytes_) return false;
        const std::uint64_t begun_max = total_bytes_ - used_bytes + question;
        std::uint64_t seen = begun_max_.load();
        while (seen < begun_max && !begun_max_.compare_exchange_weak(seen, begun_max)) continue;
        return true;
    }

  private:
    const std::uint64_t total_bytes_;
    std::atomic<std::uint64_t> begun_{0};
    std::atomic<std::uint64_t> done_{0};
    std::atomic<std::uint64_t> begun_max_;
};

}  // namespace pnode::cxl
