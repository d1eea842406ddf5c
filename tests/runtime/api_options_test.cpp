// Nodes and heaps: what opens, what is refused, and what a refusal leaves behind.
#include <dirent.h>

#include <climits>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "cxl/topology.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

// Never dereferenced: shows whether a failed call touched its output.
template <class T>
T* untouched() {
    return reinterpret_cast<T*>(std::uintptr_t{0x1234000});
}

TEST(NodeOpen, RefusesWhatIsNotASpec) {
    for (const char* spec : {"",
                             ":",
                             "memory",
                             "memory:",
                             "memory:0",
                             "memory:-1",
                             "memory:-1M",
                             "memory:M",
                             "memory:1Q",
                             "memory:1MM",
                             "memory:1M ",
                             "memory: 1M",
                             "memory:1M:2",
                             "memory:x",
                             "memory:0x",
                             "16M",
                             "nothing:16M",
                             "memory:0%",
                             "memory:1000%",
                             "memory:99999999999999999999",
                             "memory:99999999999999999999T",
                             "memory:18446744073709551615T"}) {
        SCOPED_TRACE(spec);
        pn_node* node = untouched<pn_node>();
        EXPECT_EQ(pn_node_open(spec, nullptr, &node), EINVAL);
        EXPECT_EQ(node, untouched<pn_node>());
        EXPECT_STRNE(pn_last_message(), "");
    }
}

TEST(NodeOpen, RefusesNull) {
    pn_node* node = untouched<pn_node>();
    EXPECT_EQ(pn_node_open(nullptr, nullptr, &node), EINVAL);
    EXPECT_EQ(node, untouched<pn_node>());
    EXPECT_EQ(pn_node_open("memory:16M", nullptr, nullptr), EINVAL);
}

TEST(NodeOpen, RefusesMoreThanPhysicalMemory) {
    pn_node* node = untouched<pn_node>();
    EXPECT_EQ(pn_node_open("memory:4096T", nullptr, &node), ENOMEM);
    EXPECT_EQ(node, untouched<pn_node>());
    EXPECT_STRNE(pn_last_message(), "");
}

TEST(NodeOpen, TakesEverySuffix) {
    for (const char* spec : {"memory:16777216", "memory:16384K", "memory:16M", "memory:1G", "memory:10%"}) {
        SCOPED_TRACE(spec);
        pn_node* node = nullptr;
        ASSERT_EQ(pn_node_open(spec, nullptr, &node), 0) << pn_last_message();
        EXPECT_EQ(pn_node_close(node), 0);
    }
}

TEST(NodeOpen, CloseTakesNull) {
    EXPECT_EQ(pn_node_close(nullptr), 0);
}

TEST(LastMessage, BelongsToTheThreadThatFailed) {
    pn_node* node = nullptr;
    ASSERT_EQ(pn_node_open("nothing:16M", nullptr, &node), EINVAL);
    const std::string mine = pn_last_message();
    EXPECT_NE(mine, "");
    EXPECT_EQ(mine.find('\n'), std::string::npos) << "one line";
    std::string others = "unset";
    std::thread([&] { others = pn_last_message(); }).join();
    EXPECT_EQ(others, "");
}

TEST(Strerror, HasASentenceForEachResult) {
    std::map<std::string, int> seen;
    for (const int error : {0, EINVAL, ENOMEM, EBUSY, EPERM, ENOSYS, ENOSPC, EIO, EAGAIN}) {
        const char* const sentence = pn_strerror(error);
        ASSERT_NE(sentence, nullptr);
        EXPECT_STRNE(sentence, "");
        EXPECT_TRUE(seen.emplace(sentence, error).second) << sentence;
    }
}

TEST(Strerror, AnswersForEveryNumber) {
    for (const int error : {-1, 4095, INT_MAX, INT_MIN}) {
        EXPECT_NE(pn_strerror(error), nullptr) << error;
    }
}

TEST(HeapOptions, StartWithTheHeadersSizeAndVersion) {
    pn_heap_options options;
    std::memset(&options, 0xa5, sizeof(options));
    pn_heap_options_init(&options);
    EXPECT_EQ(options.struct_bytes, sizeof(options));
    EXPECT_EQ(options.version, PN_VERSION);
    EXPECT_EQ(options.node, nullptr);
    EXPECT_EQ(options.flags, 0u);
    EXPECT_EQ(options.engine, static_cast<std::uint32_t>(PN_ENGINE_AUTO));
}

class HeapOpen : public HeapTest {
  protected:
    struct Change {
        const char* what;
        std::function<void(pn_heap_options&)> apply;
    };

    void expect_refused(const Change& change, std::initializer_list<int> errors) {
        SCOPED_TRACE(change.what);
        pn_heap_options options = fresh_options();
        change.apply(options);
        pn_heap* heap = untouched<pn_heap>();
        const int error = pn_heap_open(&options, &heap);
        EXPECT_TRUE(std::find(errors.begin(), errors.end(), error) != errors.end()) << error;
        EXPECT_EQ(heap, untouched<pn_heap>());
        EXPECT_STRNE(pn_last_message(), "");
    }
};

TEST_F(HeapOpen, RefusesValuesOutOfRange) {
    const Change changes[] = {
        {"no size", [](auto& o) { o.struct_bytes = 0; }},
        {"smaller struct", [](auto& o) { o.struct_bytes -= 1; }},
        {"larger struct", [](auto& o) { o.struct_bytes += 8; }},
        {"no version", [](auto& o) { o.version = 0; }},
        {"next version", [](auto& o) { o.version = PN_VERSION + 1; }},
        {"near 1", [](auto& o) { o.near_bytes_max = 1; }},
        {"total 1", [](auto& o) { o.total_bytes_max = 1; }},
        {"total just below 1 MiB", [](auto& o) { o.total_bytes_max = mib - 1; }},
        {"total without end", [](auto& o) { o.total_bytes_max = UINT64_MAX; }},
        {"near just below 1 MiB", [](auto& o) { o.near_bytes_max = mib - 1; }},
        {"codec empty", [](auto& o) { o.codec = ""; }},
        {"codec unknown", [](auto& o) { o.codec = "lz5"; }},
        {"codec with a tail", [](auto& o) { o.codec = "lz4x"; }},
        {"no level", [](auto& o) { o.codec = "zstd:"; }},
        {"level not a number", [](auto& o) { o.codec = "zstd:x"; }},
        {"level with a tail", [](auto& o) { o.codec = "zstd:3x"; }},
        {"level above", [](auto& o) { o.codec = "zstd:1000"; }},
        {"level below", [](auto& o) { o.codec = "zstd:-99999999"; }},
        {"level overflows", [](auto& o) { o.codec = "zstd:99999999999999999999"; }},
        {"engine above", [](auto& o) { o.engine = 3; }},
        {"engine absurd", [](auto& o) { o.engine = UINT32_MAX; }},
        {"unknown flag", [](auto& o) { o.flags = 1u << 31; }},
        {"unknown flag among known ones", [](auto& o) { o.flags = PN_HEAP_STRICT | 16u; }},
        {"spec malformed", [](auto& o) { o.node_spec = "memory"; }},
        {"spec empty", [](auto& o) { o.node_spec = ""; }},
        {"spec of no kind", [](auto& o) { o.node_spec = "nothing:16M"; }},
    };
    for (const Change& change : changes) expect_refused(change, {EINVAL});
}

TEST_F(HeapOpen, RefusesAbsurdSizes) {
    const Change changes[] = {
        {"address space overflows", [](auto& o) { o.address_bytes_max = UINT64_MAX; }},
        {"address space just below", [](auto& o) { o.address_bytes_max = UINT64_MAX - page_bytes; }},
        {"more address space than there is", [](auto& o) { o.address_bytes_max = std::uint64_t{1} << 60; }},
        {"node larger than memory", [](auto& o) { o.node_spec = "memory:4096T"; }},
    };
    for (const Change& change : changes) expect_refused(change, {EINVAL, ENOMEM});
}

TEST_F(HeapOpen, RefusesNull) {
    pn_heap* heap = untouched<pn_heap>();
    EXPECT_EQ(pn_heap_open(nullptr, &heap), EINVAL);
    EXPECT_EQ(heap, untouched<pn_heap>());
    EXPECT_EQ(pn_heap_open(&options_, nullptr), EINVAL);
    EXPECT_EQ(pn_heap_close(nullptr), 0);
}

TEST_F(HeapOpen, TakesEveryCodecName) {
    for (const char* codec : {static_cast<const char*>(nullptr), "lz4", "zstd", "zstd:1", "zstd:3", "zstd:-3",
                              "deflate", "iaa", "iaa:model"}) {
        SCOPED_TRACE(codec == nullptr ? "default" : codec);
        pn_heap_options options = fresh_options();
        options.codec = codec;
        pn_heap* heap = nullptr;
        ASSERT_EQ(pn_heap_open(&options, &heap), 0) << pn_last_message();
        EXPECT_EQ(pn_heap_close(heap), 0);
    }
}

TEST_F(HeapOpen, TakesTheLeastNearLimitAndNoMore) {
    options_.near_bytes_max = mib;
    open_heap();
    EXPECT_EQ(stats().near_bytes_max, mib);
    for (const std::uint64_t bad : {std::uint64_t{1}, page_bytes, mib - 1}) {
        EXPECT_EQ(pn_heap_set_near_limit(heap_, bad), EINVAL);
        EXPECT_EQ(stats().near_bytes_max, mib);
    }
    EXPECT_EQ(pn_heap_set_near_limit(heap_, 3 * mib), 0);
    EXPECT_EQ(stats().near_bytes_max, 3 * mib);
    EXPECT_EQ(pn_heap_set_near_limit(nullptr, 3 * mib), EINVAL);
}

TEST_F(HeapOpen, CopiesItsStrings) {
    char codec[] = "zstd:1";
    char spec[] = "memory:16M";
    options_.codec = codec;
    options_.node_spec = spec;
    open_heap();
    std::memset(codec, 'x', sizeof(codec) - 1);
    std::memset(spec, 'x', sizeof(spec) - 1);
    std::uint8_t* const buffer = alloc_filled(4, Kind::text, 1);
    make_far(buffer, 4);
    EXPECT_EQ(wrong_pages(buffer, 4, Kind::text, 1), 0u);
    EXPECT_LE(stats().far_bytes_max, 16 * mib);
}

TEST_F(HeapOpen, NodeMayBeClosedUnderItsHeap) {
    ASSERT_EQ(pn_node_open("memory:16M", nullptr, &options_.node), 0) << pn_last_message();
    options_.node_spec = nullptr;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(8, Kind::text, 1);
    make_far(buffer, 8);
    EXPECT_EQ(pn_node_close(options_.node), 0) << pn_last_message();
    EXPECT_EQ(pages_in_state(buffer, 8, PN_PAGE_FAR), 0u);
    EXPECT_EQ(wrong_pages(buffer, 8, Kind::text, 1), 0u);
    EXPECT_EQ(pn_demote(heap_, buffer, 8 * page_bytes, nullptr), ENOSPC);
    EXPECT_EQ(wrong_pages(buffer, 8, Kind::text, 1), 0u);
}

TEST_F(HeapOpen, ClosesWithPinnedAndFarPages) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(16, Kind::text, 1);
    ASSERT_EQ(pn_pin(heap_, buffer, 8 * page_bytes), 0);
    make_far(buffer + 8 * page_bytes, 8);
    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
}

// Descriptor number to its close-on-exec flag.
std::map<int, bool> open_descriptors() {
    std::map<int, bool> result;
    DIR* const directory = opendir("/proc/self/fd");
    if (directory == nullptr) return result;
    while (const dirent* entry = readdir(directory)) {
        const int fd = std::atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd != dirfd(directory)) {
            result[fd] = (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
        }
    }
    closedir(directory);
    return result;
}

std::uint64_t status_figure(const char* file, const std::string& name) {
    std::ifstream status(file);
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with(name + ":")) return std::strtoull(line.c_str() + name.size() + 1, nullptr, 10);
    }
    return 0;
}
std::uint64_t thread_count() {
    return status_figure("/proc/self/status", "Threads");
}

TEST_F(HeapOpen, KeepsItsDescriptorsAbove100AndFromExec) {
    const std::map<int, bool> before = open_descriptors();
    open_heap();
    std::uint8_t* const buffer = alloc_filled(16, Kind::text, 1);
    make_far(buffer, 16);
    EXPECT_EQ(wrong_pages(buffer, 16, Kind::text, 1), 0u);
    std::map<int, bool> opened = open_descriptors();
    std::erase_if(opened, [&](const auto& fd) { return before.contains(fd.first); });
    EXPECT_FALSE(opened.empty());
    for (const auto& [fd, close_on_exec] : opened) {
        EXPECT_GT(fd, 100);
        EXPECT_TRUE(close_on_exec) << fd;
    }
    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    EXPECT_EQ(open_descriptors(), before);
}

TEST_F(HeapOpen, IsInertUntilActivation) {
    const std::map<int, bool> descriptors = open_descriptors();
    const std::uint64_t threads = thread_count();
    options_.activation_bytes = 8 * mib;
    options_.near_bytes_max = 4 * mib;
    open_heap();
    std::uint8_t* const early = alloc_filled(64, Kind::text, 1);
    EXPECT_EQ(open_descriptors(), descriptors);
    EXPECT_EQ(thread_count(), threads);
    EXPECT_EQ(wrong_pages(early, 64, Kind::text, 1), 0u);

    std::uint8_t* const late = alloc_filled(16 * mib / page_bytes, Kind::text, 1000);
    EXPECT_GT(open_descriptors().size(), descriptors.size());
    make_far(early, 64);
    EXPECT_EQ(wrong_pages(early, 64, Kind::text, 1), 0u);
    EXPECT_EQ(wrong_pages(late, 16 * mib / page_bytes, Kind::text, 1000), 0u);
    EXPECT_GT(stats().demotions, 0u);
}

TEST_F(HeapOpen, WorksWhileInert) {
    options_.activation_bytes = gib;
    open_heap();
    std::uint8_t* const buffer = alloc_filled(64, Kind::text, 1);
    EXPECT_EQ(pn_pin(heap_, buffer, 2 * page_bytes), 0);
    EXPECT_EQ(pn_promote(heap_, buffer, 64 * page_bytes), 0);
    EXPECT_EQ(pn_release(heap_, buffer + 2 * page_bytes, page_bytes), 0);
    EXPECT_TRUE(page_is(buffer + 2 * page_bytes, Kind::zeros, 0));
    EXPECT_EQ(pn_unpin(heap_, buffer, 2 * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer, 2, Kind::text, 1), 0u);
    EXPECT_EQ(wrong_pages(buffer + 3 * page_bytes, 61, Kind::text, 4), 0u);
    EXPECT_EQ(pn_buffer_free(heap_, buffer, 64 * page_bytes), 0);
}

TEST_F(HeapOpen, ManyTimesLeavesNothingBehind) {
    open_heap();
    EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    const std::map<int, bool> descriptors = open_descriptors();
    for (int round = 0; round < 20; ++round) {
        open_heap();
        std::uint8_t* const buffer = alloc_filled(8, Kind::text, 1);
        make_far(buffer, 8);
        EXPECT_EQ(pn_heap_close(std::exchange(heap_, nullptr)), 0);
    }
    EXPECT_EQ(open_descriptors(), descriptors);
}

TEST_F(HeapOpen, OfATerabyteIsSparse) {
    options_.address_bytes_max =
        thread_sanitized ? 64 * gib : 1024 * gib;  // ThreadSanitizer leaves less room
    options_.near_bytes_max = 4 * mib;
    const std::uint64_t bytes = options_.address_bytes_max / 2;
    const std::uint64_t stride = bytes / 64;
    open_heap();
    const std::uint64_t resident_kib = status_figure("/proc/self/status", "VmRSS");
    void* buffer = nullptr;
    ASSERT_EQ(pn_buffer_alloc(heap_, bytes, 0, &buffer), 0);
    auto* const first = static_cast<std::uint8_t*>(buffer);
    for (std::uint64_t i = 0; i < 64; ++i) fill_pages(first + i * stride, 8, Kind::text, i);
    make_far(first + stride, 8);
    for (std::uint64_t i = 0; i < 64; ++i)
        EXPECT_EQ(wrong_pages(first + i * stride, 8, Kind::text, i), 0u) << i;
    EXPECT_TRUE(page_is(first + bytes - page_bytes, Kind::zeros, 0));
    if (!sanitized) {
        EXPECT_LT(status_figure("/proc/self/status", "VmRSS"), resident_kib + 48 * kib);
    }
}

TEST_F(HeapOpen, StatisticsNeedTheHeadersStruct) {
    open_heap();
    pn_stats_t wrong = {};
    wrong.demotions = 77;
    for (const auto& [size, version] : {std::pair<std::size_t, std::uint32_t>{0, PN_VERSION},
                                        {sizeof(wrong) - 8, PN_VERSION},
                                        {sizeof(wrong) + 8, PN_VERSION},
                                        {sizeof(wrong), 0},
                                        {sizeof(wrong), PN_VERSION + 1}}) {
        wrong.struct_bytes = static_cast<std::uint32_t>(size);
        wrong.version = version;
        EXPECT_EQ(pn_stats(heap_, &wrong), EINVAL);
        EXPECT_EQ(wrong.demotions, 77u);
    }
    EXPECT_EQ(pn_stats(heap_, nullptr), EINVAL);
    wrong.struct_bytes = sizeof(wrong);
    wrong.version = PN_VERSION;
    EXPECT_EQ(pn_stats(nullptr, &wrong), EINVAL);
}

TEST_F(HeapOpen, JsonStatisticsHoldEveryFigure) {
    open_heap();
    alloc_filled(4, Kind::text, 1);
    std::vector<char> text(4096);
    ASSERT_EQ(pn_stats_json(heap_, text.data(), text.size()), 0);
    const nlohmann::json parsed = nlohmann::json::parse(text.data(), nullptr, false);
    ASSERT_TRUE(parsed.is_object()) << text.data();
#define EXPECT_FIGURE(name, unit, sentence) EXPECT_TRUE(parsed.contains(#name)) << #name;
    PN_STATS_LIST(EXPECT_FIGURE)
#undef EXPECT_FIGURE
    EXPECT_EQ(parsed.value("engine", ""), tests_inline_engine() ? "inline" : "thread");
    EXPECT_EQ(parsed.value("eviction", ""), pages_are_moved() ? "move" : "write-protect");
}

TEST_F(HeapOpen, JsonNeedsRoom) {
    open_heap();
    char text[16] = "untouched";
    for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}, sizeof(text)}) {
        EXPECT_EQ(pn_stats_json(heap_, text, capacity), ENOSPC);
        EXPECT_EQ(pn_probe_json(text, capacity), ENOSPC);
        EXPECT_STREQ(text, "untouched");
    }
    EXPECT_EQ(pn_stats_json(heap_, nullptr, 4096), EINVAL);
    EXPECT_EQ(pn_stats_json(nullptr, text, sizeof(text)), EINVAL);
    EXPECT_EQ(pn_probe_json(nullptr, 16384), EINVAL);
}

// A devdax device whose node is online in part, and a node without CPUs, as sysfs would have them.
class ProbeOfAnotherMachine : public ::testing::Test {
  protected:
    const std::filesystem::path root_ =
        std::filesystem::temp_directory_path() / ("pnode-probe-" + std::to_string(getpid()));
    void SetUp() override {
        write("bus/dax/devices/dax0.0/size", "1073741824");
        write("bus/dax/devices/dax0.0/align", "2097152");
        write("bus/dax/devices/dax0.0/target_node", "1");
        write("bus/dax/devices/dax0.0/resource", "0x101200000");
        for (const char* node : {"node1", "node2"}) {
            const std::string folder = std::string("devices/system/node/") + node + "/";
            write(folder + "cpulist", "");
            write(folder + "access0/initiators/read_latency", node == std::string("node1") ? "250" : "0");
            write(folder + "access0/initiators/write_bandwidth", "15360");
        }
        write("devices/system/node/node2/meminfo", "Node 2 MemTotal: 1048576 kB");
        cxl::set_sysfs_root(root_.c_str());
    }
    void TearDown() override {
        cxl::set_sysfs_root("/sys");
        std::filesystem::remove_all(root_);
    }
    void write(const std::string& name, const std::string& text) {
        std::filesystem::create_directories((root_ / name).parent_path());
        std::ofstream(root_ / name) << text << '\n';
    }
};

TEST_F(ProbeOfAnotherMachine, TellsWhatThePlatformStates) {
    std::vector<pn_node_info> found;
    const auto visit = [](const pn_node_info* info, void* all) {
        static_cast<std::vector<pn_node_info>*>(all)->push_back(*info);
        return 0;
    };
    ASSERT_EQ(pn_node_foreach(visit, &found), 0);
    ASSERT_EQ(found.size(), 3u);
    EXPECT_STREQ(found[0].spec, "dax:/dev/dax0.0");
    EXPECT_EQ(found[0].align_bytes, 2 * mib);
    EXPECT_EQ(found[0].resource, 0x101200000u);
    EXPECT_EQ(found[0].read_latency_ns, 250u);
    EXPECT_EQ(found[0].write_bandwidth_mbps, 15360u);
    EXPECT_EQ(found[0].numa_node, 1);
    EXPECT_STREQ(found[1].spec, "numa:2");
    EXPECT_EQ(found[1].bytes, gib);
    EXPECT_EQ(found[1].read_latency_ns, 0u);
    EXPECT_STREQ(found[2].spec, "memory:SIZE");

    std::vector<char> text(65536);
    ASSERT_EQ(pn_probe_json(text.data(), text.size()), 0);
    const nlohmann::json nodes = nlohmann::json::parse(text.data())["nodes"];
    EXPECT_EQ(nodes[0]["resource"], "0x101200000");
    EXPECT_EQ(nodes[0]["align_bytes"], 2 * mib);
    EXPECT_EQ(nodes[0]["read_latency_ns"], 250);
    EXPECT_EQ(nodes[1]["read_latency_ns"], "unknown");
}

TEST(Probe, IsOneJsonObject) {
    std::vector<char> text(16384);
    ASSERT_EQ(pn_probe_json(text.data(), text.size()), 0);
    const nlohmann::json parsed = nlohmann::json::parse(text.data(), nullptr, false);
    EXPECT_TRUE(parsed.is_object()) << text.data();
    EXPECT_FALSE(parsed.empty());
}

}  // namespace
}  // namespace pnode::test
