// C01 to C10: a node is reached through its handle, and in no other way.
#include <numa.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/contract/contract_fixture.h"

namespace pnode::test {
namespace {

constexpr std::uint32_t with_direct = PN_NODE_DEFAULT | PN_NODE_DIRECT;

// Allocations of a program that knows nothing of nodes, until malloc itself fails: for want of addresses, or,
// under the preload library, because neither near nor far limit has room for what does not compress.
// `last_resort` is what there is behind malloc then: nothing, or, in the negative control, a zonelist that a
// node was put into.
template <class LastResort>
void allocate_until_malloc_fails(LastResort last_resort) {
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
    const rlimit tight{status_bytes("VmSize") + 256 * mib, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
    std::vector<std::unique_ptr<char, decltype(&std::free)>> blocks;
    blocks.reserve(1024);
    std::vector<std::uint8_t> noise(mib);
    fill_pages(noise.data(), mib / page_bytes, Kind::random, 1);
    bool failed = false;
    while (!failed && blocks.size() < 1024) {
        auto* const block = static_cast<char*>(std::malloc(mib));
        failed = block == nullptr;
        if (!failed) std::memcpy(block, noise.data(), mib);
        if (!failed) blocks.emplace_back(block, &std::free);
    }
    if (failed) last_resort();
    EXPECT_EQ(setrlimit(RLIMIT_AS, &before), 0);
    EXPECT_TRUE(failed || sanitized);
}

TEST_F(Contract, C01_NothingReachesANodeWithoutAHandle) {
    if (sanitized) GTEST_SKIP() << "a sanitizer's shadow leaves no room for an address space limit";
    pn_node* const target = node("memory:64M", with_direct);
    allocate_until_malloc_fails([] {});
    EXPECT_EQ(node_stats(target).used_bytes, 0u);
}

// The same load and the same figure, with the isolation off: what malloc cannot give comes from the node.
TEST_F(Contract, C01_NegativeControl_BehindMallocTheNodeWouldBeReached) {
    if (sanitized) GTEST_SKIP() << "a sanitizer's shadow leaves no room for an address space limit";
    pn_node* const target = node("memory:64M", with_direct);
    void* spilled = nullptr;
    allocate_until_malloc_fails([&] { EXPECT_EQ(pn_node_alloc(target, mib, PN_DIRECT, &spilled), 0); });
    EXPECT_TRUE(is_in_region(target, spilled));
    EXPECT_GE(node_stats(target).used_bytes, mib);
    EXPECT_EQ(pn_node_free(target, spilled), 0);
}

TEST_F(Contract, C01_NegativeControl_AHeapOnTheNodeReachesIt) {
    pn_node* const target = node("memory:64M");
    open_heap_on(target, 2 * mib);
    alloc_filled(2048, Kind::text, 1);
    EXPECT_GT(node_stats(target).used_bytes, 0u);
}

TEST_F(Contract, C02_RestrictIsNotPermit) {
    void* out = nullptr;
    EXPECT_EQ(pn_node_alloc(nullptr, 4096, PN_DIRECT | PN_THISNODE, &out), EINVAL);
    pn_node* const a = node("memory:8M", with_direct);
    pn_node* const b = node("memory:8M", with_direct);
    EXPECT_EQ(pn_node_alloc(a, 4096, PN_THISNODE, &out), EINVAL);
    EXPECT_EQ(pn_node_alloc(a, 4096, 8, &out), EINVAL);
    EXPECT_EQ(out, nullptr);
    ASSERT_EQ(pn_node_alloc(a, 4096, PN_DIRECT, &out), 0);
    EXPECT_TRUE(is_in_region(a, out));
    ASSERT_EQ(pn_node_set_pressure(a, PN_PRESSURE_MAX), 0);
    void* elsewhere = nullptr;
    ASSERT_EQ(pn_node_alloc(a, 4096, PN_DIRECT, &elsewhere), 0);  // DRAM, never another node
    EXPECT_FALSE(is_in_region(a, elsewhere));
    EXPECT_FALSE(is_in_region(b, elsewhere));
    std::memset(elsewhere, 1, 4096);
    EXPECT_EQ(node_stats(a).direct_fallbacks, 1u);
    EXPECT_EQ(node_stats(b).used_bytes, 0u);
    ASSERT_EQ(pn_node_set_pressure(a, 0), 0);
    void* larger_than_the_node = nullptr;
    EXPECT_EQ(pn_node_alloc(a, 9 * mib, PN_DIRECT | PN_THISNODE, &larger_than_the_node), ENOSPC);
    ASSERT_EQ(pn_node_alloc(a, 9 * mib, PN_DIRECT, &larger_than_the_node), 0);
    EXPECT_FALSE(is_in_region(b, larger_than_the_node));
    EXPECT_EQ(node_stats(b).used_bytes, 0u);
    EXPECT_EQ(pn_node_free(a, larger_than_the_node), 0);
    EXPECT_EQ(pn_node_free(a, out), 0);
    EXPECT_EQ(pn_node_free(a, elsewhere), 0);
    EXPECT_EQ(pn_node_free(a, elsewhere), EINVAL);
}

// That nothing more comes from `target`, and nothing from elsewhere instead.
void expect_strict_allocation_fails_at_once(pn_node* target) {
    const std::uint64_t anonymous = status_bytes("RssAnon");
    std::uint64_t fastest_ns = UINT64_MAX;
    void* out = nullptr;
    int wrong = 0;
    for (int i = 0; i < 1000; ++i) {
        const std::uint64_t start_ns = os::now_ns();
        wrong += pn_node_alloc(target, 64 * kib, PN_DIRECT | PN_THISNODE, &out) == ENOSPC ? 0 : 1;
        fastest_ns = std::min(fastest_ns, os::now_ns() - start_ns);
    }
    if (!thread_sanitized) {  // whose shadow of what runs is resident too
        EXPECT_LE(status_bytes("RssAnon"), anonymous + 256 * kib);
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_LT(fastest_ns, 1'000'000u);
    EXPECT_EQ(node_stats(target).direct_fallbacks, 0u);
}

TEST_F(Contract, C03_StrictAllocationOnAGatedNodeFailsAtOnceAndTakesNothing) {
    pn_node* const gated = node("memory:4M", with_direct);
    ASSERT_EQ(pn_node_set_pressure(gated, PN_PRESSURE_MAX), 0);
    expect_strict_allocation_fails_at_once(gated);
    EXPECT_EQ(node_stats(gated).refused_gated, 1000u);
    EXPECT_EQ(node_stats(gated).used_bytes, 0u);
}

TEST_F(Contract, C03_StrictAllocationOnAFullNodeFailsAtOnceAndTakesNothing) {
    pn_node* const full = node("memory:4M", with_direct);
    std::vector<void*> buffers;
    void* out = nullptr;
    while (pn_node_alloc(full, 64 * kib, PN_DIRECT | PN_THISNODE, &out) == 0) {
        ASSERT_LT(buffers.size(), 64u);
        buffers.push_back(out);
    }
    EXPECT_EQ(buffers.size(), 64u);
    expect_strict_allocation_fails_at_once(full);
    for (void* buffer : buffers) EXPECT_EQ(pn_node_free(full, buffer), 0);
    EXPECT_EQ(node_stats(full).direct_bytes, 0u);
}

TEST_F(Contract, C04_NoPrivateToPrivateFallback) {
    pn_node* const full = node("memory:1M", with_direct);
    pn_node* const empty = node("memory:64M", with_direct);
    void* direct = nullptr;
    ASSERT_EQ(pn_node_alloc(full, 512 * kib, PN_DIRECT | PN_THISNODE, &direct), 0);
    open_heap_on(full);
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::half, 1);
    EXPECT_EQ(pn_demote(heap_, buffer, pages * page_bytes, nullptr), ENOSPC);
    void* out = nullptr;
    EXPECT_EQ(pn_node_alloc(full, 512 * kib, PN_DIRECT | PN_THISNODE, &out), ENOSPC);
    EXPECT_EQ(node_stats(empty).used_bytes, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::half, 1), 0u);
    EXPECT_EQ(pn_node_free(full, direct), 0);
}

class Overwrite {
  public:
    explicit Overwrite(Heap& heap)
        : heap_(heap), region_(heap.far.node()->region()), live_(region_.size_bytes()) {}
    void mark(std::uint64_t first, std::uint64_t pages) {
        for (std::uint64_t page = first; page < first + pages; ++page) {
            const PageWord word = heap_.word(page).load();
            if (word.place() == cxl::no_blob) continue;
            const auto slot = heap_.far.bytes(word);
            std::fill_n(live_.begin() + (slot.data() - region_.bytes()), slot.size(), true);
        }
    }
    std::uint64_t free_bytes() {
        std::uint64_t overwritten = 0;
        for (std::size_t at = 0; at < live_.size(); ++at) {
            if (live_[at]) continue;
            region_.bytes()[at] = std::byte{0xff};
            ++overwritten;
        }
        return overwritten;
    }

  private:
    Heap& heap_;
    cxl::Region& region_;
    std::vector<bool> live_;
};

TEST_F(Contract, C05_NothingOfTheRuntimesIsInANodeOrManaged) {
    pn_node* const target = node("memory:8M");
    open_heap_on(target);
    constexpr std::uint64_t pages = 512;
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages / 2, Kind::text, 1), 0u);
    {
        const Inside nobody_demotes(inside().operations);
        Overwrite overwrite(inside());
        overwrite.mark(inside().page_at(reinterpret_cast<std::uint64_t>(buffer)), pages);
        EXPECT_GT(overwrite.free_bytes(), 4 * mib);
    }
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);

    Heap& heap = inside();
    const void* const own[] = {&heap,
                               heap.words,
                               heap.pins,
                               heap.resolve_lanes[0].pages,
                               heap.resolve_lanes[0].room.scratch.data(),
                               heap.evict_lanes[0].staging,
                               heap.evict_lanes[0].blob,
                               heap.evict_lanes[0].scratch.data(),
                               target->node.get(),
                               &target->node->store()};
    for (const void* pointer : own) {
        EXPECT_FALSE(heap.contains(reinterpret_cast<std::uint64_t>(pointer))) << pointer;
        EXPECT_FALSE(is_in_region(target, pointer)) << pointer;
    }
}

// Each maps and unmaps, and those with a node set a policy.
TEST_F(Contract, C06_NoHelperOfLibnumaReachesANode) {
    if (numa_available() < 0) GTEST_SKIP() << "a kernel without NUMA";
    pn_node* const target = node("memory:64M", with_direct);
    using Helper = void* (*)();
    constexpr std::size_t bytes = 4096;
    constexpr Helper helpers[] = {[] { return numa_alloc(bytes); }, [] { return numa_alloc_local(bytes); },
                                  [] { return numa_alloc_interleaved(bytes); },
                                  [] { return numa_alloc_onnode(bytes, 0); }};
    for (int i = 0; i < 100'000; ++i) {
        void* const block = helpers[i % 4]();
        ASSERT_NE(block, nullptr);
        ASSERT_FALSE(is_in_region(target, block));
        numa_free(block, bytes);
    }
    EXPECT_EQ(node_stats(target).used_bytes, 0u);
    EXPECT_EQ(node_stats(target).placements, 0u);
}

TEST_F(Contract, C06_NoHelperOfLibcReachesANode) {
    pn_node* const target = node("memory:64M", with_direct);
    constexpr int calls = 100'000;
    for (int i = 0; i < calls; ++i) {
        const auto bytes = static_cast<std::size_t>(16 + i % 2000);
        void* const blocks[] = {std::calloc(1, bytes), std::aligned_alloc(64, 64 * (bytes / 64 + 1)),
                                strdup("a name of some length"), ::operator new(bytes)};
        for (void* block : blocks) ASSERT_FALSE(is_in_region(target, block));
        for (int each = 0; each < 3; ++each) std::free(blocks[each]);
        ::operator delete(blocks[3]);
    }
    for (int i = 0; i < calls; ++i) {
        void* const mapped = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ASSERT_FALSE(is_in_region(target, mapped));
        munmap(mapped, 4096);
    }
    EXPECT_EQ(node_stats(target).used_bytes, 0u);
    EXPECT_EQ(node_stats(target).placements, 0u);
}

struct Sweep {
    unsigned visited = 0;
    unsigned refused = 0;
    pn_node* handle = nullptr;  // without DIRECT
};

int try_to_allocate(const pn_node_info* info, void* context) {
    auto* const sweep = static_cast<Sweep*>(context);
    ++sweep->visited;
    EXPECT_STRNE(info->kind, "");
    EXPECT_STRNE(info->spec, "");
    EXPECT_GT(info->bytes, 0u);
    void* out = nullptr;
    sweep->refused += pn_node_alloc(nullptr, 4096, PN_DIRECT | PN_THISNODE, &out) == EINVAL ? 1 : 0;
    sweep->refused += pn_node_alloc(nullptr, 4096, PN_DIRECT, &out) == EINVAL ? 1 : 0;
    sweep->refused += pn_node_alloc(sweep->handle, 4096, PN_DIRECT | PN_THISNODE, &out) == EPERM ? 1 : 0;
    EXPECT_EQ(out, nullptr);
    return 0;
}

TEST_F(Contract, C07_SweepOverAllNodesIsRefused) {
    Sweep sweep;
    sweep.handle = node("memory:64M");
    EXPECT_EQ(pn_node_foreach(try_to_allocate, &sweep), 0);
    EXPECT_GE(sweep.visited, 1u);
    EXPECT_EQ(sweep.refused, 3 * sweep.visited);
    EXPECT_EQ(node_stats(sweep.handle).used_bytes, 0u);
    EXPECT_EQ(pn_node_foreach(nullptr, nullptr), EINVAL);
    EXPECT_EQ(pn_node_foreach([](const pn_node_info*, void*) { return 7; }, nullptr), 7);
}

pn_node* strict_node;
std::atomic<unsigned> handler_runs;
std::atomic<unsigned> handler_in_node;

void note_placement(bool is_in_node) {
    if (is_in_node) handler_in_node.fetch_add(1);
    handler_runs.fetch_add(1);
}

// malloc here is safe: the loop it interrupts calls nothing of libc's allocator.
void allocate_in_handler(int) {
    void* const block = std::malloc(4096);
    note_placement(is_in_region(strict_node, block));
    std::free(block);
}

// As if placement were a mode of the thread, which its handlers inherit. Of the node's own calls none is
// interrupted half way: they block signals.
thread_local bool placing_on_node = false;
void allocate_in_handler_as_the_mode_says(int) {
    void* block = nullptr;
    if (placing_on_node) pn_node_alloc(strict_node, 4096, PN_DIRECT | PN_THISNODE, &block);
    note_placement(is_in_region(strict_node, block));
    pn_node_free(strict_node, block);
}

// Strict allocations, one after the other, interrupted by the handler: until it ran 20 times.
void allocate_strictly_under(void (*handler)(int)) {
    handler_runs = handler_in_node = 0;
    struct sigaction action {};
    struct sigaction before {};
    action.sa_handler = handler;
    ASSERT_EQ(sigaction(SIGPROF, &action, &before), 0);
    const itimerval often{{0, 1000}, {0, 1000}};
    ASSERT_EQ(setitimer(ITIMER_PROF, &often, nullptr), 0);
    unsigned in_node = 0;
    unsigned calls = 0;
    const std::uint64_t end_ns = os::now_ns() + 60'000'000'000;
    placing_on_node = true;
    while (handler_runs < 20 && os::now_ns() < end_ns) {
        void* out = nullptr;
        if (pn_node_alloc(strict_node, 8192, PN_DIRECT | PN_THISNODE, &out) != 0) break;
        in_node += is_in_region(strict_node, out) ? 1 : 0;
        ++calls;
        pn_node_free(strict_node, out);
    }
    placing_on_node = false;
    const itimerval never{};
    setitimer(ITIMER_PROF, &never, nullptr);
    sigaction(SIGPROF, &before, nullptr);
    EXPECT_GE(handler_runs, 20u);
    EXPECT_EQ(in_node, calls);
    EXPECT_GT(calls, 0u);
}

TEST_F(Contract, C08_NegativeControl_AModeOfTheThreadWouldBeInherited) {
    if (thread_sanitized) GTEST_SKIP() << "ThreadSanitizer lets no handler allocate";
    strict_node = node("memory:8M", with_direct);
    allocate_strictly_under(allocate_in_handler_as_the_mode_says);
    EXPECT_EQ(handler_in_node, handler_runs);
}

TEST_F(Contract, C08_SelectionIsPerCallAndNotInherited) {
    if (thread_sanitized) GTEST_SKIP() << "ThreadSanitizer lets no handler allocate";
    strict_node = node("memory:8M", with_direct);
    allocate_strictly_under(allocate_in_handler);
    EXPECT_EQ(handler_in_node, 0u);

    const pid_t child = fork();
    if (child == 0) {
        void* const block = std::malloc(mib);
        void* out = nullptr;
        const bool refused = pn_node_alloc(strict_node, 4096, PN_DIRECT | PN_THISNODE, &out) == EPERM;
        _exit(!is_in_region(strict_node, block) && refused ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

// A program that is started from here: it has neither the node's memory nor a descriptor of it.
TEST_F(Contract, C08_AProgramThatIsStartedHasNothingOfTheNode) {
    strict_node = node("memory:8M", with_direct);
    struct stat region {};
    ASSERT_EQ(fstat(strict_node->node->region().descriptor(), &region), 0);
    const std::string inode = std::to_string(region.st_ino);
    const auto mappings_of = [&](const std::string& process) {
        const std::string found = "found=$(grep -c -E ' " + inode + " .*(pnode|/dax)' /proc/" + process +
                                  "/maps); for fd in /proc/" + process +
                                  "/fd/*; do [ \"$(stat -L -c %i \"$fd\" 2>/dev/null)\" = " + inode +
                                  " ] && found=$((found + 1)); done; exit $found";
        return WEXITSTATUS(std::system(found.c_str()));
    };
    EXPECT_GE(mappings_of(std::to_string(getpid())), 2);  // what is looked for can be found
    EXPECT_EQ(mappings_of("self"), 0);
}

void* block_of_the_callback = nullptr;

// Called by the runtime while it is at work on a node.
TEST_F(Contract, C08_ACallbackHasNoModeToInherit) {
    pn_node_options node_options;
    pn_node_options_init(&node_options);
    node_options.services = with_direct;
    node_options.failed = [](pn_node*, std::uint64_t, void* told) {
        block_of_the_callback = std::malloc(mib);
        static_cast<std::atomic<bool>*>(told)->store(true);
    };
    std::atomic<bool> told{false};
    node_options.context = &told;
    pn_node* target = nullptr;
    ASSERT_EQ(pn_node_open("memory:64M", &node_options, &target), 0) << pn_last_message();
    open_heap_on(target, 2 * mib);
    alloc_filled(2048, Kind::text, 1);
    ASSERT_EQ(pn_node_set_ratio(target, 0, 1), 0);
    EXPECT_TRUE(eventually([&] { return told.load(); }));
    EXPECT_FALSE(is_in_region(target, block_of_the_callback));
    std::free(std::exchange(block_of_the_callback, nullptr));
    const auto allocate = [](const pn_node_info*, void* block) {
        *static_cast<void**>(block) = std::malloc(mib);
        return 1;
    };
    EXPECT_EQ(pn_node_foreach(allocate, &block_of_the_callback), 1);
    EXPECT_FALSE(is_in_region(target, block_of_the_callback));
    std::free(std::exchange(block_of_the_callback, nullptr));
    ASSERT_EQ(pn_node_set_ratio(target, 1, 1), 0);
    ASSERT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    EXPECT_EQ(pn_node_close(target), 0) << pn_last_message();
}

TEST_F(Contract, C09_OneOwner) {
    const ShmDevice device(8 * mib);
    pn_node* const first = open_node(device.spec());
    pn_node* second = nullptr;
    EXPECT_EQ(pn_node_open(device.spec().c_str(), nullptr, &second), EBUSY);
    EXPECT_NE(std::string(pn_last_message()).find("somebody else"), std::string::npos);
    EXPECT_EQ(second, nullptr);
    open_heap_on(first);
    std::uint8_t* const buffer = alloc_filled(64, Kind::text, 1);
    make_far(buffer, 64);
    EXPECT_EQ(wrong_pages(buffer, 64, Kind::text, 1), 0u);
    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    EXPECT_EQ(pn_node_close(first), 0);

    // An owner that is killed: the kernel drops the claim.
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        const bool opened = pn_node_open(device.spec().c_str(), nullptr, &second) == 0;
        [[maybe_unused]] const ssize_t told = write(ready[1], opened ? "y" : "n", 1);
        for (;;) pause();
    }
    char answer = 0;
    ASSERT_EQ(read(ready[0], &answer, 1), 1);
    close(ready[0]);
    close(ready[1]);
    EXPECT_EQ(answer, 'y');
    EXPECT_EQ(pn_node_open(device.spec().c_str(), nullptr, &second), EBUSY);
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    EXPECT_EQ(pn_node_open(device.spec().c_str(), nullptr, &second), 0) << pn_last_message();
    EXPECT_EQ(pn_node_close(second), 0);
}

std::uint64_t memory_bytes_told() {
    std::vector<char> text(65536);
    EXPECT_EQ(pn_probe_json(text.data(), text.size()), 0);
    return nlohmann::json::parse(text.data())["limits"]["memory_bytes"].get<std::uint64_t>();
}

TEST_F(Contract, C10_CommonAndPrivateAreToldApart) {
    const std::uint64_t available = memory_bytes_told();
    pn_node* const target = node("memory:64M");
    open_heap_on(target, 2 * mib);
    constexpr std::uint64_t pages = 2048;
    std::uint8_t* const buffer = alloc(pages);
    std::atomic<bool> done{false};
    std::thread load([&] {
        for (std::uint64_t round = 0; round < 4; ++round) fill_pages(buffer, pages, Kind::text, round);
        done = true;
    });
    unsigned snapshots = 0;
    while (!done || snapshots < 100) {
        ++snapshots;
        const pn_stats_t common = stats();
        const pn_node_stats_t own = node_stats(target);
        EXPECT_LE(common.near_bytes, 2 * mib + overshoot_bytes_max);
        EXPECT_LE(common.far_bytes, own.size_bytes);
        EXPECT_EQ(broken_sum(own), "");
    }
    load.join();
    EXPECT_TRUE(eventually([&] {  // the evictor may still be at it
        const pn_stats_t rest = stats();
        return rest.near_bytes + rest.far_logical_bytes <= rest.heap_bytes;
    }));
    EXPECT_GT(node_stats(target).used_bytes, 0u);
    EXPECT_EQ(memory_bytes_told(), available);  // private bytes are nobody's memory
}

}  // namespace
}  // namespace pnode::test
