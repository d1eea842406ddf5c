// C16 to C22: a node whose device has less than it says.
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "cxl/capacity_bound.h"
#include "tests/contract/contract_fixture.h"

namespace pnode::test {
namespace {

// PNODE_SEED=N replays another run.
std::uint64_t seed() {
    const char* given = std::getenv("PNODE_SEED");
    const std::uint64_t value = given != nullptr ? std::strtoull(given, nullptr, 0) : 20261128;
    ::testing::Test::RecordProperty("PNODE_SEED", std::to_string(value));
    return value;
}

// ---- C16 ----

class Storm : public Contract {
  protected:
    static constexpr std::uint64_t pages = 3072;  // 12 MiB, into a device that has 2
    void begin() {
        target_ = node("sim:32M,physical=2M");
        options_.codec = "device";
        open_heap_on(target_);
        device_ = target_->node->region().device();
        device_->behaviour.event_delay_stores = 64;
        device_->behaviour.answer_delay_yields = 1;
        buffer_ = alloc(pages);
        seeds_.assign(pages, 0);
        kinds_.assign(pages, Kind::zeros);
    }
    void rewrite(std::uint64_t page, Kind kind, std::uint64_t value) {
        fill_page(buffer_ + page * page_bytes, kind, value);
        seeds_[page] = value;
        kinds_[page] = kind;
    }
    void storm(int rounds) {
        Random random(seed());
        for (std::uint64_t page = 0; page < pages; ++page)
            rewrite(page, page % 3 == 0 ? Kind::random : Kind::text, page);
        for (int round = 0; round < rounds; ++round) {
            const std::uint64_t first = random.below(pages - 64);
            pn_demote(heap_, buffer_ + first * page_bytes, 64 * page_bytes, nullptr);
            const std::uint64_t other = random.below(pages - 16);
            for (std::uint64_t page = other; page < other + 16; ++page)
                rewrite_if_readable(page, random.below(4) == 0 ? Kind::random : Kind::half,
                                    random.next() % 100000);
        }
    }
    // A lost page is not touched: that would be the test's own SIGBUS.
    void rewrite_if_readable(std::uint64_t page, Kind kind, std::uint64_t value) {
        if (pn_promote(heap_, buffer_ + page * page_bytes, page_bytes) == 0) rewrite(page, kind, value);
    }
    std::uint64_t wrong() {
        std::uint64_t count = 0;
        for (std::uint64_t page = 0; page < pages; ++page) {
            if (pn_promote(heap_, buffer_ + page * page_bytes, page_bytes) != 0) continue;
            count += page_is(buffer_ + page * page_bytes, kinds_[page], seeds_[page]) ? 0 : 1;
        }
        return count;
    }
    pn_node* target_ = nullptr;
    cxl::SimulatedDevice* device_ = nullptr;
    std::uint8_t* buffer_ = nullptr;
    std::vector<std::uint64_t> seeds_;
    std::vector<Kind> kinds_;
};

TEST_F(Storm, C16_NoPageIsLostOnADeviceThatRunsFull) {
    begin();
    storm(400);
    EXPECT_GT(node_stats(target_).placements, 0u);
    EXPECT_GT(node_stats(target_).refused_full + node_stats(target_).refused_gated, 0u);
    EXPECT_GT(node_stats(target_).device_questions, 0u);
    EXPECT_EQ(device_->poisoned_pages(), 0u);
    EXPECT_LE(device_->used_bytes(), device_->physical_bytes());
    EXPECT_EQ(wrong(), 0u);
    EXPECT_EQ(stats().poisoned, 0u);
    EXPECT_EQ(broken_sum(node_stats(target_)), "");
}

TEST_F(Storm, C16_NegativeControl_WithoutTheBoundPagesAreLostAndToldSo) {
    if (thread_sanitized) GTEST_SKIP() << "ThreadSanitizer lets no handler jump out of bad memory";
    loses_pages_ = true;
    begin();
    target_->node->ignore_bound(true);
    device_->behaviour.event_delay_stores = 1'000'000;
    storm(100);
    EXPECT_EQ(wrong(), 0u);  // lost, never wrong
    EXPECT_GT(stats().poisoned, 0u);
}

// ---- C17 ----

TEST_F(Contract, C17_PressureIsMonotoneStopsAtItsMaximumAndLetsGoAtZero) {
    pn_node* const target = node("memory:16M");
    open_heap_on(target);
    std::uint64_t last = UINT64_MAX;
    for (std::uint32_t permille = 0; permille <= PN_PRESSURE_MAX; ++permille) {
        ASSERT_EQ(pn_node_set_pressure(target, permille), 0);
        const pn_node_stats_t now = node_stats(target);
        ASSERT_LE(now.placeable_bytes, last);
        ASSERT_EQ(now.pressure, permille);
        ASSERT_EQ(now.gate, permille == PN_PRESSURE_MAX ? std::uint64_t{PN_GATE_PRESSURE} : 0u);
        last = now.placeable_bytes;
    }
    EXPECT_EQ(last, 0u);
    EXPECT_EQ(pn_node_set_pressure(target, PN_PRESSURE_MAX + 1), EINVAL);
    constexpr std::uint64_t pages = 256;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    EXPECT_EQ(pn_demote(heap_, buffer, pages * page_bytes, nullptr), ENOSPC);
    EXPECT_EQ(node_stats(target).placements, 0u);
    ASSERT_EQ(pn_node_set_pressure(target, 0), 0);
    make_far(buffer, pages);
    // While pages go out, it comes down within a batch.
    fill_pages(buffer, pages, Kind::text, 2);
    ASSERT_EQ(pn_node_set_pressure(target, PN_PRESSURE_MAX), 0);
    const std::uint64_t placed = node_stats(target).placements;
    pn_demote(heap_, buffer, pages * page_bytes, nullptr);
    EXPECT_EQ(node_stats(target).placements, placed);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 2), 0u);
    ASSERT_EQ(pn_node_set_pressure(target, 0), 0);
}

// ---- C18 ----

// As a careless implementation would be: one flag for all owners.
class OneFlagGate {
  public:
    void shut(cxl::GateReason) { shut_ = true; }
    void open(cxl::GateReason) { shut_ = false; }
    bool is_open() const { return !shut_; }

  private:
    bool shut_ = false;
};

// Every set of reasons, cleared in every order, the last opens and no other.
template <class Gate>
bool opens_only_when_the_last_reason_goes() {
    using cxl::GateReason;
    std::array<GateReason, 4> order = {GateReason::closed_by_user, GateReason::converging,
                                       GateReason::teardown, GateReason::full};
    for (unsigned set = 1; set < 16; ++set) {
        std::sort(order.begin(), order.end());
        do {
            Gate gate;
            unsigned left = set;
            for (const GateReason reason : order)
                if ((set & static_cast<unsigned>(reason)) != 0) gate.shut(reason);
            for (const GateReason reason : order) {
                if ((set & static_cast<unsigned>(reason)) == 0) continue;
                gate.open(reason);
                left &= ~static_cast<unsigned>(reason);
                if (gate.is_open() != (left == 0)) return false;
            }
        } while (std::next_permutation(order.begin(), order.end()));
    }
    return true;
}

TEST_F(Contract, C18_TheGateIsTheOrOfItsReasons) {
    EXPECT_TRUE(opens_only_when_the_last_reason_goes<cxl::Gate>());
    EXPECT_FALSE(opens_only_when_the_last_reason_goes<OneFlagGate>());  // the negative control
    // A convergence that fails keeps the gate shut.
    pn_node* const target = node("memory:64M");
    open_heap_on(target, 2 * mib);
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_GT(node_stats(target).used_bytes, mib);
    ASSERT_EQ(pn_node_set_ratio(target, 0, 1000), 0);
    EXPECT_TRUE(eventually([&] { return node_stats(target).ladder_failures != 0; }));
    EXPECT_EQ(node_stats(target).gate, static_cast<std::uint64_t>(PN_GATE_CONVERGING));
    ASSERT_EQ(pn_node_set_pressure(target, PN_PRESSURE_MAX), 0);
    ASSERT_EQ(pn_node_set_pressure(target, 0), 0);  // its owner clears its own reason, and no other
    EXPECT_EQ(node_stats(target).gate, static_cast<std::uint64_t>(PN_GATE_CONVERGING));
    ASSERT_EQ(pn_node_set_ratio(target, 1000, 1000), 0);
    EXPECT_EQ(node_stats(target).gate, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

// ---- C19 ----

// Forgets what was in flight when the question was put.
class CarelessBound {
  public:
    explicit CarelessBound(std::uint64_t total) : total_(total) {}
    bool begin(std::uint64_t worst) {
        if (used_ + since_ + worst > total_) return false;
        since_ += worst;
        return true;
    }
    void end(std::uint64_t) {}
    std::uint64_t question() const { return 0; }
    bool answer(std::uint64_t, std::uint64_t used) {
        used_ = used;
        since_ = 0;
        return true;
    }

  private:
    std::uint64_t total_, used_ = 0, since_ = 0;
};

// Placements and questions whose steps interleave at random: begin, store, end; ask, sample, answer. The most
// the device ever used.
template <class Bound>
std::uint64_t most_used(std::uint64_t seed, std::uint64_t total) {
    constexpr std::uint64_t worst = 8;
    Random random(seed);
    Bound bound(total);
    enum class Step { idle, begun, stored };
    std::array<Step, 8> placers{};
    enum class Ask { idle, asked, sampled } ask = Ask::idle;
    std::uint64_t used = 0, most = 0, question = 0, sample = 0;
    for (int step = 0; step < 4000; ++step) {
        const std::uint64_t actor = random.below(placers.size() + 2);
        if (actor == placers.size()) {
            used -= std::min(used, random.below(worst));  // something is freed
        } else if (actor > placers.size()) {
            if (ask == Ask::idle) question = bound.question();
            if (ask == Ask::asked) sample = used;
            if (ask == Ask::sampled) bound.answer(question, sample);
            ask = ask == Ask::sampled ? Ask::idle : static_cast<Ask>(static_cast<int>(ask) + 1);
        } else if (placers[actor] == Step::idle) {
            if (bound.begin(worst)) placers[actor] = Step::begun;
        } else if (placers[actor] == Step::begun) {
            used += 1 + random.below(worst);
            most = std::max(most, used);
            placers[actor] = Step::stored;
        } else {
            bound.end(worst);
            placers[actor] = Step::idle;
        }
    }
    return most;
}

TEST_F(Contract, C19_TheBoundHoldsUnderEveryInterleaving) {
    constexpr std::uint64_t total = 200;
    std::uint64_t most = 0;
    std::uint64_t most_careless = 0;
    for (std::uint64_t run = 0; run < 500; ++run) {
        most = std::max(most, most_used<cxl::CapacityBound>(seed() + run, total));
        most_careless = std::max(most_careless, most_used<CarelessBound>(seed() + run, total));
    }
    EXPECT_LE(most, total);
    EXPECT_GT(most, total * 3 / 4);   // and it is of use
    EXPECT_GT(most_careless, total);  // the negative control
}

TEST_F(Contract, C19_TheBoundHoldsForThreadsOnADevice) {
    pn_node* const target = node("sim:32M,physical=1M");
    cxl::SimulatedDevice& device = *target->node->region().device();
    device.behaviour.answer_delay_yields = 3;
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            const os::SignalsBlocked signals;
            Random random(t);
            std::vector<cxl::BlobRef> placed;
            for (int i = 0; i < 1500; ++i) {
                const PageImage image =
                    page_image(random.below(2) == 0 ? Kind::random : Kind::text, random.next());
                const cxl::BlobRef ref = target->node->place(std::as_bytes(std::span(image)));
                if (ref != cxl::no_blob) placed.push_back(ref);
                // More than the device takes, for each by itself too.
                if (placed.size() < 600 && ref != cxl::no_blob) continue;
                for (cxl::BlobRef old : placed) target->node->store().free(old);
                placed.clear();
            }
            for (cxl::BlobRef old : placed) target->node->store().free(old);
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(device.poisoned_pages(), 0u);
    EXPECT_GT(node_stats(target).refused_full + node_stats(target).refused_gated, 0u);
    EXPECT_EQ(device.used_bytes(), 0u);
}

TEST_F(Contract, C19_AnAnswerThatCannotBeTrueIsNotBelieved) {
    pn_node* const target = node("sim:32M,physical=1M");
    cxl::SimulatedDevice& device = *target->node->region().device();
    device.behaviour.answer_permille = 5000;
    device.behaviour.event_delay_stores = 1'000'000;
    const PageImage image = page_image(Kind::random, 1);
    unsigned placed = 0;
    while (target->node->place(std::as_bytes(std::span(image))) != cxl::no_blob) ASSERT_LT(++placed, 1000u);
    EXPECT_GT(placed, 50u);
    EXPECT_EQ(device.poisoned_pages(), 0u);
    EXPECT_GT(node_stats(target).device_disbelieved, 0u);
}

// ---- C20, C21, C22 ----

TEST_F(Contract, C20_TheLatestRatioHolds) {
    pn_node* const target = node("memory:64M");
    open_heap_on(target);
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            Random random(t);
            for (int i = 0; i < 25'000; ++i)
                pn_node_set_ratio(target, random.below(3000), 1 + random.below(3000));
        });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(pn_node_set_ratio(target, 1500, 2000), 0);
    EXPECT_EQ(node_stats(target).effective_bytes, 48 * mib);
    EXPECT_EQ(node_stats(target).placeable_bytes, 48 * mib);
    ASSERT_EQ(pn_node_set_ratio(target, 3000, 2000), 0);  // better than promised: no more than perceived
    EXPECT_EQ(node_stats(target).effective_bytes, 64 * mib);
    EXPECT_EQ(pn_node_set_ratio(target, 1, 0), EINVAL);
    EXPECT_EQ(node_stats(target).effective_bytes, 64 * mib);
    // Re-checked before sleeping: a report during a convergence is not lost.
    constexpr std::uint64_t pages = 1024;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    make_far(buffer, pages);
    ASSERT_EQ(pn_node_set_ratio(target, 0, 1), 0);
    ASSERT_EQ(pn_node_set_ratio(target, 1, 64), 0);
    EXPECT_TRUE(
        eventually([&] { return node_stats(target).used_bytes <= mib && node_stats(target).gate == 0; }));
    EXPECT_GT(node_stats(target).evacuated_pages, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 1), 0u);
}

struct Failure {
    std::atomic<unsigned> calls{0};
    std::atomic<std::uint64_t> excess_bytes{0};
};

TEST_F(Contract, C21_TheLadderEndsWithTheHostsChoiceAndNeverAWrongByte) {
    Failure failure;
    pn_node_options node_options;
    pn_node_options_init(&node_options);
    node_options.context = &failure;
    node_options.failed = [](pn_node*, std::uint64_t excess, void* context) {
        auto* const told = static_cast<Failure*>(context);
        told->excess_bytes = excess;
        told->calls.fetch_add(1);
    };
    pn_node* target = nullptr;
    ASSERT_EQ(pn_node_open("memory:64M", &node_options, &target), 0);
    open_heap_on(target, 2 * mib);
    int events = -1;
    ASSERT_EQ(pn_node_events(target, &events), 0);
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    ASSERT_EQ(pn_node_set_ratio(target, 0, 1), 0);
    EXPECT_TRUE(eventually([&] { return failure.calls != 0; }));
    EXPECT_GT(failure.excess_bytes, mib);
    pollfd readable{events, POLLIN, 0};
    EXPECT_EQ(poll(&readable, 1, 60'000), 1);
    std::uint64_t told = 0;
    EXPECT_EQ(read(events, &told, sizeof told), static_cast<ssize_t>(sizeof told));
    EXPECT_GT(told, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(failure.calls, 1u);  // once, until it has settled
    // The host makes room: what is in excess comes near by itself.
    ASSERT_EQ(pn_heap_set_near_limit(heap_, 64 * mib), 0);
    EXPECT_TRUE(
        eventually([&] { return node_stats(target).used_bytes == 0 && node_stats(target).gate == 0; }));
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    EXPECT_EQ(pn_node_close(target), 0);
}

TEST_F(Contract, C22_AWithdrawnNodeKeepsItsResidents) {
    pn_node* const target = node("memory:64M");
    open_heap_on(target);
    constexpr std::uint64_t pages = 64;
    std::uint8_t* const buffer = alloc(pages);
    using cxl::GateReason;
    for (const GateReason reason : {GateReason::closed_by_user, GateReason::teardown, GateReason::full}) {
        fill_pages(buffer, pages, Kind::text, 1);
        make_far(buffer, pages);
        const std::uint64_t placed = node_stats(target).placements;
        target->node->gate().shut(reason);
        EXPECT_EQ(wrong_pages(buffer, pages / 2, Kind::text, 1), 0u);
        EXPECT_EQ(pn_promote(heap_, buffer, pages * page_bytes), 0);
        EXPECT_EQ(pages_in_state(buffer, pages, PN_PAGE_FAR), 0u);
        fill_pages(buffer, pages, Kind::text, 1);
        EXPECT_EQ(pn_demote(heap_, buffer, pages * page_bytes, nullptr), ENOSPC);
        EXPECT_EQ(node_stats(target).placements, placed);
        target->node->gate().open(reason);
    }
}

}  // namespace
}  // namespace pnode::test
