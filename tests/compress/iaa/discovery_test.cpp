// Finding queues in a made-up /sys.
#include "compress/iaa/discovery.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

namespace pnode::compress::iaa {
namespace {

namespace fs = std::filesystem;

class IaaDiscovery : public ::testing::Test {
  protected:
    using Attributes = std::map<std::string, std::string>;

    IaaDiscovery() {
        std::string name = ::testing::TempDir() + "pnode-iaa-XXXXXX";
        EXPECT_NE(::mkdtemp(name.data()), nullptr);
        root_ = name;
    }
    ~IaaDiscovery() override { fs::remove_all(root_); }

    void write(const fs::path& folder, const Attributes& attributes) {
        fs::create_directories(folder);
        for (const auto& [name, value] : attributes) std::ofstream(folder / name) << value << '\n';
    }
    void add_device(const std::string& name, const Attributes& changed = {}) {
        Attributes attributes = {{"state", "enabled"}, {"numa_node", "0"}};
        for (const auto& [key, value] : changed) attributes[key] = value;
        write(devices() / name, attributes);
    }
    void add_queue(const std::string& device, const std::string& name, const Attributes& changed = {}) {
        Attributes attributes = {{"state", "enabled"},    {"mode", "shared"},
                                 {"type", "user"},        {"size", "128"},
                                 {"block_on_fault", "1"}, {"driver_name", "user"},
                                 {"threshold", "128"},    {"max_transfer_size", "2147483648"}};
        for (const auto& [key, value] : changed) attributes[key] = value;
        write(devices() / device / name, attributes);
    }
    fs::path devices() const { return root_ / "sys/bus/dsa/devices"; }
    // What it was allowed before.
    static cpu_set_t stay_on_this_processor() {
        cpu_set_t before, one;
        EXPECT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
        CPU_ZERO(&one);
        CPU_SET(::sched_getcpu(), &one);
        EXPECT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
        return before;
    }
    QueuesFound find() const { return find_queues(root_.string()); }

    fs::path root_;
};

TEST_F(IaaDiscovery, WhereThereIsNothingNothingIsFound) {
    EXPECT_TRUE(find().usable.empty());
    EXPECT_TRUE(find().refused.empty());
}

TEST_F(IaaDiscovery, ReadsWhatAQueueIs) {
    add_device("iax1");
    add_queue("iax1", "wq1.0");
    add_queue("iax1", "wq1.3", {{"mode", "dedicated"}, {"size", "16"}, {"block_on_fault", "0"}});
    const QueuesFound found = find();
    ASSERT_EQ(found.usable.size(), 2u);
    EXPECT_EQ(found.usable[0].name, "iax1/wq1.0");
    EXPECT_EQ(found.usable[0].path, (root_ / "dev/iax/wq1.0").string());
    EXPECT_FALSE(found.usable[0].dedicated);
    EXPECT_TRUE(found.usable[0].block_on_fault);
    EXPECT_EQ(found.usable[0].size, 128u);
    EXPECT_TRUE(found.usable[1].dedicated);
    EXPECT_FALSE(found.usable[1].block_on_fault);
    EXPECT_EQ(found.usable[1].size, 16u);
}

TEST_F(IaaDiscovery, OtherDevicesAreNoBusinessOfOurs) {
    add_device("dsa0");
    add_queue("dsa0", "wq0.0");
    add_device("iax1");
    write(devices() / "iax1/engine1.0", {{"group_id", "0"}});
    EXPECT_TRUE(find().usable.empty());
    EXPECT_TRUE(find().refused.empty());
}

TEST_F(IaaDiscovery, QueuesOfThisNodeComeFirst) {
    const cpu_set_t before = stay_on_this_processor();
    unsigned processor = 0, here = 0;
    ASSERT_EQ(::getcpu(&processor, &here), 0);
    add_device("iax1", {{"numa_node", std::to_string(here + 1)}});
    add_queue("iax1", "wq1.0");
    add_device("iax3", {{"numa_node", std::to_string(here)}});
    add_queue("iax3", "wq3.0");
    add_device("iax5", {{"numa_node", "-1"}});
    add_queue("iax5", "wq5.0");
    const QueuesFound found = find();
    ::sched_setaffinity(0, sizeof before, &before);
    ASSERT_EQ(found.usable.size(), 3u);
    EXPECT_EQ(found.usable[0].name, "iax3/wq3.0");
    EXPECT_EQ(found.usable[1].name, "iax1/wq1.0");
    EXPECT_EQ(found.usable[2].numa_node, -1);
}

TEST_F(IaaDiscovery, EachThingThatStandsAgainstAQueueIsNamed) {
    const std::pair<Attributes, const char*> bad[] = {
        {{{"state", "disabled"}}, "its state is disabled"},
        {{{"type", "kernel"}}, "its type is kernel"},
        {{{"driver_name", "crypto"}}, "its driver_name is crypto"},
        {{{"mode", ""}}, "its mode is not told"},
        {{{"size", "0"}}, "it holds no descriptor"},
        {{{"size", "many"}}, "it holds no descriptor"},
        {{{"max_transfer_size", "2048"}}, "it transfers less than a page"},
    };
    add_device("iax1");
    for (std::size_t i = 0; i < std::size(bad); ++i)
        add_queue("iax1", "wq1." + std::to_string(i), bad[i].first);
    add_device("iax3", {{"state", "disabled"}});
    add_queue("iax3", "wq3.0");
    add_queue("iax1", "wq1.9", {{"driver_name", ""}});  // an older kernel
    const QueuesFound found = find();
    ASSERT_EQ(found.refused.size(), std::size(bad) + 1);
    for (std::size_t i = 0; i < std::size(bad); ++i)
        EXPECT_EQ(found.refused[i], "iax1/wq1." + std::to_string(i) + ": " + bad[i].second);
    EXPECT_EQ(found.refused.back(), "iax3/wq3.0: the device's state is disabled");
    EXPECT_EQ(found.usable.size(), 1u);
}

}  // namespace
}  // namespace pnode::compress::iaa
