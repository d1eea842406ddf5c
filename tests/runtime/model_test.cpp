// Random operations against a shadow copy.
//
// The seed is printed with every run. PNODE_SEED=N runs another sequence, or replays one that failed;
// PNODE_OPS=N makes it longer. One thread replays exactly; several replay their own sequences, not how they
// interleave.
#include "tests/runtime/model.h"

#include <array>
#include <atomic>
#include <iostream>
#include <mutex>
#include <shared_mutex>

#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

// Pages that all threads read and write: a lock and a version for each, and the version says what it holds.
// The heap knows nothing of the locks, and pages leave and come back under readers and writers alike.
class VersionedPages {
  public:
    static constexpr std::uint64_t pages = 64;

    VersionedPages(pn_heap* heap, std::uint8_t* first) : heap_(heap), first_(first) {}

    std::string step(Random& random) {
        const std::uint64_t page = random.below(pages);
        switch (random.below(16)) {
            case 0:
                return write(page);
            case 1:
                return release(page);
            case 2:
                return pn_promote(heap_, at(page), page_bytes) == 0 ? "" : "promote of a shared page failed";
            case 3:
            case 4:
                return pn_demote(heap_, at(page), page_bytes, nullptr) == 0
                           ? ""
                           : "demote of a shared page failed";
            case 5:
                return read_pinned(page);
            default:
                return read(page);
        }
    }

  private:
    std::uint8_t* at(std::uint64_t page) const { return first_ + page * page_bytes; }

    bool holds_its_version(std::uint64_t page) const {
        const std::uint64_t version = versions_[page];
        if (version == 0) return page_is(at(page), Kind::zeros, 0);
        return page_is(at(page), compressible_kinds[version % compressible_kinds.size()],
                       version * pages + page);
    }
    std::string read(std::uint64_t page) {
        const std::shared_lock lock(locks_[page]);
        return holds_its_version(page) ? "" : "wrong bytes in a shared page";
    }
    std::string read_pinned(std::uint64_t page) {
        if (pn_pin(heap_, at(page), page_bytes) != 0) return "pin of a shared page failed";
        std::uint8_t state = PN_PAGE_POISONED;
        if (pn_query(heap_, at(page), page_bytes, &state) != 0) return "query of a shared page failed";
        // Fresh: its contents were released while it was pinned. Busy: another thread pins it too.
        const bool stays = state == PN_PAGE_NEAR || state == PN_PAGE_FRESH || state == PN_PAGE_BUSY;
        std::string wrong = stays ? read(page) : "a pinned page in state " + std::to_string(state);
        if (pn_unpin(heap_, at(page), page_bytes) != 0) return "unpin of a shared page failed";
        return wrong;
    }
    std::string write(std::uint64_t page) {
        const std::unique_lock lock(locks_[page]);
        const std::uint64_t version = ++last_version_;
        versions_[page] = version;
        fill_page(at(page), compressible_kinds[version % compressible_kinds.size()], version * pages + page);
        return "";
    }
    std::string release(std::uint64_t page) {
        const std::unique_lock lock(locks_[page]);
        versions_[page] = 0;
        return pn_release(heap_, at(page), page_bytes) == 0 ? "" : "release of a shared page failed";
    }

    pn_heap* heap_;
    std::uint8_t* first_;
    std::array<std::shared_mutex, pages> locks_;
    std::array<std::uint64_t, pages> versions_ = {};  // each under its page's lock
    std::atomic<std::uint64_t> last_version_ = 0;
};

class ModelOf : public HeapTest, public ::testing::WithParamInterface<const char*> {
  protected:
    void SetUp() override {
        HeapTest::SetUp();
        options_.codec = GetParam();
        options_.near_bytes_max = 2 * mib;
        std::cout << "PNODE_SEED=" << seed_ << '\n';
    }

    // The evictor may be about to take what it took out off the ledger.
    void expect_empty_heap() {
        EXPECT_TRUE(eventually([&] { return stats().near_bytes == 0; })) << stats().near_bytes;
        const pn_stats_t after = stats();
        EXPECT_EQ(after.heap_bytes, 0u);
        EXPECT_EQ(after.pinned_bytes, 0u);
        EXPECT_EQ(after.far_logical_bytes, 0u);
    }

    const std::uint64_t seed_ = from_environment("PNODE_SEED", 1);
};

TEST_P(ModelOf, OneThreadHoldsEveryByte) {
    open_heap();
    Model model(heap_, {.seed = seed_, .pages_max = 2048, .forks = !thread_sanitized, .moves_limit = true});
    EXPECT_EQ(model.run(from_environment("PNODE_OPS", sanitized ? 1500 : 4000)), "");
    if (stats().recompressed != 0)
        std::cout << stats().recompressed << " pages recompressed, " << stats().dictionaries_trained
                  << " dictionaries\n";
    EXPECT_EQ(model.finish(), "");
    expect_empty_heap();
}

TEST_P(ModelOf, ThreadsHoldEveryByte) {
    constexpr std::uint64_t threads_max = 4;
    const std::uint64_t operations = from_environment("PNODE_OPS", sanitized ? 400 : 1000);
    open_heap();
    std::uint8_t* const first = alloc(VersionedPages::pages);
    VersionedPages shared(heap_, first);
    std::array<std::string, threads_max> wrong;
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < threads_max; ++t) {
        threads.emplace_back([&, t] {
            Model own(
                heap_,
                {.seed = seed_ * threads_max + t,
                 .pages_max = 512,
                 // The other threads allocate, and a sanitizer's allocator does not survive a fork meanwhile.
                 .forks = !sanitized && t == 0,
                 .moves_limit = t == 1});
            Random random(seed_ * threads_max + t);
            for (std::uint64_t i = 0; i < operations && wrong[t].empty(); i += 10) {
                wrong[t] = own.run(10);
                for (int j = 0; j < 10 && wrong[t].empty(); ++j) wrong[t] = shared.step(random);
            }
            if (wrong[t].empty()) wrong[t] = own.finish();
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& each : wrong) EXPECT_EQ(each, "");
    EXPECT_EQ(pn_buffer_free(heap_, first, VersionedPages::pages * page_bytes), 0);
    expect_empty_heap();
}

INSTANTIATE_TEST_SUITE_P(Codec, ModelOf,
                         ::testing::Values("lz4", "zstd", "iaa:model", "auto:100:6", "lz4,dict:100,16K",
                                           "auto:100:6,64K"),
                         [](const auto& suite) {
                             std::string name = suite.param;
                             std::replace_if(
                                 name.begin(), name.end(), [](char c) { return c == ':' || c == ','; }, '_');
                             return name;
                         });

}  // namespace
}  // namespace pnode::test
