// Regions on what the machine really has: a devdax device named by PNODE_TEST_DAX (dax:/dev/dax0.0), which
// nobody else may have meanwhile and whose contents are lost, and a node without CPUs named by
// PNODE_TEST_NUMA (numa:2). tests/vm/ boots machines that have both.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cxl/node.h"
#include "cxl/topology.h"
#include "tests/cxl/open_spec.h"
#include "tests/cxl/store_fixture.h"

namespace pnode::cxl {
namespace {

using Range = std::pair<std::size_t, std::size_t>;

bool is_zero(const Region& region, Range range) {
    const std::byte* const begin = region.bytes() + range.first;
    return std::all_of(begin, begin + range.second, [](std::byte byte) { return byte == std::byte{0}; });
}

bool loads(const Region& region, std::size_t at, BadRange* bad) {
    volatile int seen = 0;
    return region.load([&] { seen = static_cast<int>(region.bytes()[at]); }, bad);
}

// The kernel takes the page at `at` for broken, as it does when the hardware says so.
int break_memory(const Region& region, std::size_t at) {
    return madvise(region.bytes() + at / 4096 * 4096, 4096, MADV_HWPOISON) == 0 ? 0 : errno;
}

// A child that opens `spec`, says whether it could, and keeps it until it is killed.
class Holder {
  public:
    explicit Holder(const std::string& spec) {
        int answers[2];
        if (pipe(answers) != 0) std::abort();
        child_ = fork();
        if (child_ == 0) hold(spec, answers[1]);
        close(answers[1]);
        char answer = 'n';
        has_it_ = read(answers[0], &answer, 1) == 1 && answer == 'y';
        close(answers[0]);
    }
    ~Holder() {
        kill(child_, SIGKILL);
        waitpid(child_, nullptr, 0);
    }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;
    bool has_it() const { return has_it_; }

  private:
    [[noreturn]] static void hold(const std::string& spec, int answers) {
        const Opened opened = open_spec(spec);
        if (opened.error == 0) std::memset(opened.region->bytes(), 0x42, 4096);
        [[maybe_unused]] const ssize_t told = write(answers, opened.error == 0 ? "y" : "n", 1);
        for (;;) pause();
    }
    pid_t child_ = -1;
    bool has_it_ = false;
};

// ---- devdax ----

class DaxOfTheMachine : public ::testing::Test {
  protected:
    void SetUp() override {
        const char* const spec = std::getenv("PNODE_TEST_DAX");
        if (spec == nullptr) GTEST_SKIP() << "PNODE_TEST_DAX names no device, such as dax:/dev/dax0.0";
        spec_ = spec;
        for (const DaxDevice& device : dax_devices()) {
            if ("dax:" + device.path() == spec_) device_ = device;
        }
        ASSERT_FALSE(device_.name.empty()) << spec_ << " is not in sysfs";
        unit_ = device_.align_bytes;
        ASSERT_GE(device_.size_bytes, 16 * unit_);
    }
    // So many units of its alignment.
    std::string range(std::size_t first, std::size_t units) const {
        return spec_ + ":" + std::to_string(first * unit_) + "+" + std::to_string(units * unit_);
    }

    std::string spec_;
    DaxDevice device_;
    std::size_t unit_ = 0;
};

TEST_F(DaxOfTheMachine, sysfs_tells_its_size_alignment_and_node) {
    EXPECT_GE(unit_, 4096u);
    EXPECT_EQ(unit_ & (unit_ - 1), 0u);
    EXPECT_GE(device_.target_node, 0);
    EXPECT_FALSE(device_.is_system_ram);
    const Opened opened = open_spec(spec_);
    ASSERT_EQ(opened.error, 0) << opened.message;
    EXPECT_STREQ(opened.region->kind(), "dax");
    EXPECT_EQ(opened.region->size_bytes(), device_.size_bytes / unit_ * unit_);
    opened.region->bytes()[opened.region->size_bytes() - 1] = std::byte{7};
    EXPECT_TRUE(opened.region->clear(0, opened.region->size_bytes()));
    EXPECT_EQ(opened.region->bytes()[opened.region->size_bytes() - 1], std::byte{0});
}

// Its node is not online, so the kernel has none of them; the firmware's tables are root's to read.
TEST_F(DaxOfTheMachine, the_platforms_figures_are_told) {
    if (device_.resource == 0) GTEST_SKIP() << "not root";
    NumaNode own;
    ASSERT_TRUE(find_numa_node(0, &own));
    EXPECT_GT(device_.performance.read_latency_ns, own.performance.read_latency_ns);
    EXPECT_GT(device_.performance.write_latency_ns, own.performance.write_latency_ns);
    EXPECT_GT(device_.performance.read_bandwidth_mbps, 0u);
    EXPECT_LT(device_.performance.read_bandwidth_mbps, own.performance.read_bandwidth_mbps);
    EXPECT_LT(device_.performance.write_bandwidth_mbps, own.performance.write_bandwidth_mbps);
}

TEST_F(DaxOfTheMachine, ranges_off_its_alignment_or_its_end_are_refused) {
    const std::string half = std::to_string(unit_ / 2);
    const std::string whole = std::to_string(unit_);
    expect_refused(spec_ + ":" + half + "+" + whole, EINVAL, "alignment");
    expect_refused(spec_ + ":" + whole + "+" + half, EINVAL, "alignment");
    expect_refused(range(device_.size_bytes / unit_, 1), EINVAL, "within it");
    expect_refused(range(0, device_.size_bytes / unit_ + 1), EINVAL, "within it");
}

TEST_F(DaxOfTheMachine, a_claim_is_exclusive_and_dies_with_its_owner) {
    {
        const Holder holder(range(2, 2));
        ASSERT_TRUE(holder.has_it());
        expect_refused(spec_, EBUSY, "OFFSET+SIZE");
        expect_refused(range(3, 4), EBUSY, "OFFSET+SIZE");
        const Opened beside = open_spec(range(4, 2));  // several processes on one device
        ASSERT_EQ(beside.error, 0) << beside.message;
        const Holder third(range(0, 2));
        EXPECT_TRUE(third.has_it());
        std::memset(beside.region->bytes(), 0x17, beside.region->size_bytes());
        EXPECT_EQ(beside.region->bytes()[0], std::byte{0x17});
        EXPECT_TRUE(beside.region->clear(0, beside.region->size_bytes()));
    }
    const Opened opened = open_spec(spec_);
    ASSERT_EQ(opened.error, 0) << opened.message;
    // The killed owner could not wipe what it left. A node shows nothing of it (a_node_wipes_it).
    EXPECT_EQ(opened.region->bytes()[2 * unit_ + 64], std::byte{0x42});
    EXPECT_TRUE(opened.region->clear(0, 4 * unit_));
}

TEST_F(DaxOfTheMachine, a_node_wipes_it_when_it_is_closed) {
    const std::string spec = range(0, std::max<std::size_t>(4, 4 * MiB / unit_));
    {
        std::unique_ptr<Node> node;
        std::string message;
        ASSERT_EQ(Node::open(spec, service::by_default | service::direct, &node, &message), 0) << message;
        std::vector<std::byte> blob(3000);
        for (std::uint64_t tag = 0; tag < 100; ++tag) {
            fill_pattern(blob, tag);
            const BlobRef ref = node->place(blob);
            ASSERT_NE(ref, no_blob);
            EXPECT_TRUE(has_pattern(node->store().bytes(ref).first(blob.size()), tag));
        }
        void* direct = nullptr;
        ASSERT_EQ(node->take_direct(100 * KiB, true, &direct), 0);
        std::memset(direct, 0x77, 100 * KiB);
    }
    const Opened left = open_spec(spec);
    ASSERT_EQ(left.error, 0) << left.message;
    EXPECT_TRUE(is_zero(*left.region, {0, left.region->size_bytes()}));
}

TEST_F(DaxOfTheMachine, automatic_takes_it_first) {
    const Opened first = open_spec("auto:4M");
    ASSERT_EQ(first.error, 0) << first.message;
    EXPECT_STREQ(first.region->kind(), "dax");
    EXPECT_NE(first.region->notice().find("auto: " + spec_), std::string::npos) << first.region->notice();
}

TEST_F(DaxOfTheMachine, automatic_goes_on_to_a_node_without_processors_and_then_to_memory) {
    if (std::getenv("PNODE_TEST_NUMA") == nullptr) GTEST_SKIP() << "PNODE_TEST_NUMA names no node";
    const Opened first = open_spec("auto:4M");
    ASSERT_EQ(first.error, 0) << first.message;
    const Opened second = open_spec("auto:4M");
    ASSERT_EQ(second.error, 0) << second.message;
    EXPECT_STREQ(second.region->kind(), "numa");
    EXPECT_NE(second.region->notice().find("a node without CPUs; not " + spec_ + ": somebody else has it"),
              std::string::npos)
        << second.region->notice();
    EXPECT_NE(second.region->notice().find("open to ordinary allocations"), std::string::npos);
    const Opened third = open_spec("auto:4M");
    ASSERT_EQ(third.error, 0) << third.message;
    EXPECT_STREQ(third.region->kind(), "memory");
    EXPECT_NE(third.region->notice().find("can give"), std::string::npos) << third.region->notice();
}

TEST_F(DaxOfTheMachine, bad_memory_is_told_with_its_extent) {
    const Opened opened = open_spec(range(0, 8));
    ASSERT_EQ(opened.error, 0) << opened.message;
    const Region& region = *opened.region;
    std::memset(region.bytes(), 0x33, region.size_bytes());
    int refused = 0;
    BadRange bad;
    // On a device the kernel raises the signal at once, in who has it mapped.
    const bool was_good = region.load([&] { refused = break_memory(region, 3 * unit_ + 4096 * 5); }, &bad);
    if (refused != 0) GTEST_SKIP() << "no MADV_HWPOISON here: " << std::strerror(refused);
    EXPECT_FALSE(was_good);
    EXPECT_EQ(bad.bytes, unit_);
    EXPECT_EQ(bad.address, reinterpret_cast<std::uintptr_t>(region.bytes()) + 3 * unit_);
    EXPECT_TRUE(loads(region, 2 * unit_, &bad));
    EXPECT_EQ(region.bytes()[5 * unit_], std::byte{0x33});
    EXPECT_TRUE(opened.region->clear(0, region.size_bytes()));
}

// A forked child runs into it; the kernel tells this process too, which was reading nothing, and asked to be
// told.
TEST_F(DaxOfTheMachine, bad_memory_that_another_process_finds_is_not_used_any_more) {
    std::unique_ptr<Node> node;
    std::string message;
    ASSERT_EQ(Node::open(range(8, 8), &node, &message), 0) << message;
    ASSERT_TRUE(node->region().clear(4 * unit_, unit_));  // who has not touched it is not told
    ASSERT_EQ(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0), 0);
    const pid_t child = fork();
    if (child == 0) {
        BadRange bad;
        int refused = 0;
        const bool good =
            node->region().load([&] { refused = break_memory(node->region(), 4 * unit_); }, &bad);
        _exit(good ? refused : 0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(prctl(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 0, 0, 0), 0);
    ASSERT_TRUE(WIFEXITED(status)) << status;
    if (WEXITSTATUS(status) != 0) GTEST_SKIP() << "no MADV_HWPOISON here";
    const std::vector<std::byte> blob(3000, std::byte{0x77});
    while (node->place(blob) != no_blob) continue;
    EXPECT_EQ(node->store().quarantined_bytes(), unit_);
    EXPECT_EQ(node->counters.bad_ranges, 1u);
}

// ---- NUMA ----

class NumaOfTheMachine : public ::testing::Test {
  protected:
    void SetUp() override {
        const char* const spec = std::getenv("PNODE_TEST_NUMA");
        if (spec == nullptr) GTEST_SKIP() << "PNODE_TEST_NUMA names no node without CPUs, such as numa:1";
        spec_ = spec;
        number_ = std::atoi(spec_.c_str() + spec_.find(':') + 1);
    }
    std::uint64_t free_bytes() const { return numa_free_bytes(number_); }

    std::string spec_;
    int number_ = -1;
};

// The node of each page, as the kernel has it.
std::vector<int> places_of(const Region& region) {
    std::vector<void*> pages;
    for (std::size_t at = 0; at < region.size_bytes(); at += 4096) pages.push_back(region.bytes() + at);
    std::vector<int> places(pages.size(), -1);
    EXPECT_EQ(syscall(SYS_move_pages, 0, pages.size(), pages.data(), nullptr, places.data(), 0), 0);
    return places;
}

TEST_F(NumaOfTheMachine, every_page_is_taken_and_lies_on_the_node) {
    const std::uint64_t before = free_bytes();
    const Opened opened = open_spec(spec_ + ":64M");
    ASSERT_EQ(opened.error, 0) << opened.message;
    EXPECT_EQ(resident_bytes(*opened.region), 64 * MiB);
    const std::vector<int> places = places_of(*opened.region);
    EXPECT_EQ(std::count(places.begin(), places.end(), number_), static_cast<long>(places.size()));
    EXPECT_LE(free_bytes() + 32 * MiB, before);  // what was given back a moment ago may come to be free late
    EXPECT_NE(opened.region->notice().find("cpuset.mems"), std::string::npos) << opened.region->notice();
    std::memset(opened.region->bytes(), 1, 64 * MiB);
    EXPECT_EQ(opened.region->discard(0, 64 * MiB), 0);
    EXPECT_TRUE(is_zero(*opened.region, {0, 64 * MiB}));
    const std::vector<int> still = places_of(*opened.region);
    EXPECT_EQ(std::count(still.begin(), still.end(), number_), static_cast<long>(still.size()));
}

TEST_F(NumaOfTheMachine, a_full_node_is_an_error_and_nothing_comes_from_elsewhere) {
    const Opened all = open_spec(spec_);  // what it can give
    ASSERT_EQ(all.error, 0) << all.message;
    EXPECT_GT(all.region->size_bytes(), 64 * MiB);
    const std::vector<int> places = places_of(*all.region);
    EXPECT_EQ(std::count(places.begin(), places.end(), number_), static_cast<long>(places.size()));
    const std::uint64_t elsewhere = numa_free_bytes(0);
    expect_refused(spec_ + ":64M", ENOSPC, "can give");
    EXPECT_LE(elsewhere, numa_free_bytes(0) + 16 * MiB);
}

TEST_F(NumaOfTheMachine, the_platforms_figures_are_told) {
    NumaNode node;
    ASSERT_TRUE(find_numa_node(number_, &node));
    EXPECT_FALSE(node.has_cpus);
    EXPECT_GT(node.memory_bytes, 64 * MiB);
    EXPECT_GT(node.performance.read_latency_ns, 0u);
    EXPECT_GT(node.performance.read_bandwidth_mbps, 0u);
    NumaNode own;
    ASSERT_TRUE(find_numa_node(0, &own));
    EXPECT_TRUE(own.has_cpus);
    EXPECT_LT(own.performance.read_latency_ns, node.performance.read_latency_ns);
    expect_refused("numa:0:4M", EINVAL, "has CPUs");
}

TEST_F(NumaOfTheMachine, bad_memory_costs_its_page_and_no_other) {
    const Opened opened = open_spec(spec_ + ":4M");
    ASSERT_EQ(opened.error, 0) << opened.message;
    Region& region = *opened.region;
    std::memset(region.bytes(), 0x33, region.size_bytes());
    int refused = 0;
    BadRange bad;
    // Later kernels (6.12) raise the signal at once, as on a device.
    (void)region.load([&] { refused = break_memory(region, MiB + 100); }, &bad);
    if (refused != 0) GTEST_SKIP() << "no MADV_HWPOISON here: " << std::strerror(refused);
    EXPECT_TRUE(loads(region, MiB - 1, &bad));
    EXPECT_FALSE(loads(region, MiB + 100, &bad));
    EXPECT_EQ(bad.address, reinterpret_cast<std::uintptr_t>(region.bytes() + MiB));
    EXPECT_EQ(bad.bytes, 4096u);
    const std::byte blob[100] = {};
    EXPECT_FALSE(region.store(MiB + 50, blob));
    EXPECT_FALSE(region.clear(MiB - 64, 128));
    EXPECT_TRUE(loads(region, MiB + 4096, &bad));
    EXPECT_EQ(region.bytes()[MiB + 4096], std::byte{0x33});
}

}  // namespace
}  // namespace pnode::cxl
