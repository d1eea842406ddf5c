// What a model of the device does wrong, and when: drawn from a seed, so that a run can be replayed.
//
// Thread rule: a plan is one thread's.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace pnode::compress::iaa::model {

enum class Misdeed : std::uint8_t {
    none,
    status,      // completes with `status` and `error_code`, having written nothing
    page_fault,  // at page number `number` of source, AECS and destination
    hang,        // never completes
    late,        // completes after `number` more requests
    flip_byte,   // one byte of the output is wrong
    wrong_size,  // the record tells `number` more bytes than there are
    wrong_crc,
    stall,  // takes nothing for `number` milliseconds
    vanish  // takes nothing ever again
};

struct Fault {
    Misdeed misdeed = Misdeed::none;
    std::uint8_t status = 0;
    std::uint8_t error_code = 0;
    std::int16_t number = 0;
};

class Plan {
  public:
    Plan() = default;
    // After `spared` requests, `per_mille` of them meet one of `faults`.
    Plan(std::uint64_t seed, std::uint64_t spared, unsigned per_mille, std::vector<Fault> faults)
        : random_(seed), seed_(seed), spared_(spared), per_mille_(per_mille), faults_(std::move(faults)) {}

    // For the next request.
    Fault draw() noexcept {
        if (faults_.empty() || drawn_++ < spared_ || random_() % 1000 >= per_mille_) return {};
        return faults_[random_() % faults_.size()];
    }

    // One line and back: how a plan reaches another process.
    std::string text() const;
    static Plan parse(const std::string& text);

  private:
    std::mt19937_64 random_;
    std::uint64_t seed_ = 0;
    std::uint64_t spared_ = 0;
    std::uint64_t drawn_ = 0;
    unsigned per_mille_ = 0;
    std::vector<Fault> faults_;
};

}  // namespace pnode::compress::iaa::model
