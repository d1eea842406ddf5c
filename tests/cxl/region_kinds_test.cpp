// Regions that are not this process's own memory: devices, NUMA nodes, a device that compresses. Where the
// machine has none, a file on /dev/shm stands in for the device, and sysfs is a tree of the test's own; maps,
// locks, policies and signals are the kernel's. machine_test.cpp has what the machine's own devices must
// show.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "cxl/node.h"
#include "cxl/topology.h"
#include "tests/cxl/open_spec.h"
#include "tests/cxl/store_fixture.h"
#include "tests/shm_device.h"
#include "tests/sleeping_thread.h"

namespace pnode::cxl {
namespace {

namespace fs = std::filesystem;

class ShmFile : public test::ShmDevice {
  public:
    using ShmDevice::ShmDevice;
    std::vector<char> contents() const {
        std::ifstream file(path(), std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
};

TEST(DaxRegion, is_the_devices_memory) {
    const ShmFile file(4 * MiB);
    {
        const Opened opened = open_spec(file.spec());
        ASSERT_EQ(opened.error, 0) << opened.message;
        EXPECT_STREQ(opened.region->kind(), "dax");
        EXPECT_EQ(opened.region->size_bytes(), 4 * MiB);
        EXPECT_GT(opened.region->descriptor(), 100);
        EXPECT_TRUE(opened.region->outlives_owner());
        EXPECT_TRUE(opened.region->is_memory_apart());
        std::memset(opened.region->bytes() + MiB, 0x5a, MiB);
        EXPECT_EQ(opened.region->discard(MiB, 64 * KiB), 0);
    }
    const std::vector<char> left = file.contents();
    EXPECT_EQ(left[MiB + 64 * KiB - 1], 0);
    EXPECT_EQ(left[MiB + 64 * KiB], 0x5a);
}

TEST(DaxRegion, ranges_are_leased_apart_from_each_other) {
    const ShmFile file(4 * MiB);
    const Opened low = open_spec(file.spec() + ":0+1M");
    const Opened high = open_spec(file.spec() + ":1M+3M");
    ASSERT_EQ(low.error, 0) << low.message;
    ASSERT_EQ(high.error, 0) << high.message;
    low.region->bytes()[0] = std::byte{1};
    EXPECT_EQ(high.region->bytes()[0], std::byte{0});
    expect_refused(file.spec(), EBUSY, "OFFSET+SIZE");
    expect_refused(file.spec() + ":512K+1M", EBUSY, "OFFSET+SIZE");
}

TEST(DaxRegion, bad_devices_and_ranges_are_refused_and_the_cure_is_named) {
    const ShmFile file(4 * MiB);
    expect_refused("dax:/dev/dax99.99", ENOENT, "pnode probe");
    expect_refused("dax:/dev/null", EINVAL, "/dev/daxX.Y");
    expect_refused("dax:/proc/self/comm", EINVAL, "/dev/daxX.Y");
    expect_refused(file.spec() + ":0+8M", EINVAL, "4.0 MiB");
    expect_refused(file.spec() + ":4M+1M", EINVAL, "within it");
    expect_refused(file.spec() + ":2K+1M", EINVAL, "alignment");
    expect_refused(file.spec() + ":0+5000", EINVAL, "alignment");
}

// As somebody who is nobody, where that can be had: root may do all.
TEST(DaxRegion, without_the_right_to_it_the_cure_is_named) {
    constexpr uid_t nobody = 65534;
    const ShmFile file(4 * MiB);
    ASSERT_EQ(chmod(file.path().c_str(), 0400), 0);
    const uid_t before = geteuid();
    if (before == 0) {
        ASSERT_EQ(seteuid(nobody), 0);
    }
    const Opened refused = open_spec(file.spec());
    ASSERT_EQ(seteuid(before), 0);
    EXPECT_EQ(refused.error, EACCES);
    EXPECT_NE(refused.message.find("let the user read and write it (a udev rule"), std::string::npos)
        << refused.message;
}

// Half of it is gone: who opens the whole is told how much there is.
TEST(DaxRegion, one_that_shrank_is_refused_for_what_it_has_now) {
    const ShmFile file(4 * MiB);
    ASSERT_EQ(open_spec(file.spec() + ":0+4M").error, 0);
    ASSERT_EQ(truncate(file.path().c_str(), 2 * MiB), 0);
    expect_refused(file.spec() + ":0+4M", EINVAL, "has 2.0 MiB: name a range within it");
    EXPECT_EQ(open_spec(file.spec()).region->size_bytes(), 2 * MiB);
}

TEST(DaxRegion, a_node_wipes_it_when_it_is_closed) {
    const ShmFile file(4 * MiB);
    {
        std::unique_ptr<Node> node;
        std::string message;
        ASSERT_EQ(Node::open(file.spec(), service::by_default | service::direct, &node, &message), 0)
            << message;
        const std::vector<std::byte> blob(3000, std::byte{0x77});
        for (int i = 0; i < 100; ++i) ASSERT_NE(node->place(blob), no_blob);
        void* direct = nullptr;
        ASSERT_EQ(node->take_direct(100 * KiB, true, &direct), 0);
        std::memset(direct, 0x77, 100 * KiB);
        const std::vector<char> held = file.contents();
        EXPECT_GT(std::count(held.begin(), held.end(), 0x77), 300000);
    }
    const std::vector<char> left = file.contents();
    EXPECT_EQ(std::count(left.begin(), left.end(), 0), static_cast<long>(4 * MiB));
}

// A file that shrinks is as near as this machine comes to memory that goes away under a mapping.
TEST(DaxRegion, what_goes_away_is_told_and_not_fatal) {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "ThreadSanitizer lets no handler jump out of bad memory";
#endif
    const ShmFile file(4 * MiB);
    const Opened opened = open_spec(file.spec());
    ASSERT_EQ(opened.error, 0);
    ASSERT_EQ(truncate(file.path().c_str(), 2 * MiB), 0);
    BadRange bad;
    volatile int seen = 0;
    const auto load_at = [&](std::size_t at) {
        return opened.region->load([&, at] { seen = static_cast<int>(opened.region->bytes()[at]); }, &bad);
    };
    EXPECT_TRUE(load_at(MiB));
    EXPECT_FALSE(load_at(3 * MiB + 5));
    EXPECT_EQ(bad.address, reinterpret_cast<std::uintptr_t>(opened.region->bytes() + 3 * MiB));
    EXPECT_EQ(bad.bytes, 4096u);
    const std::byte blob[100] = {};
    EXPECT_FALSE(opened.region->store(3 * MiB, blob));
    EXPECT_FALSE(opened.region->clear(2 * MiB - 64, 128));
    EXPECT_TRUE(load_at(MiB));
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, nullptr, &blocked);
    EXPECT_EQ(sigismember(&blocked, SIGBUS), 0);
}

// What the kernel sends when memory goes bad that nobody is reading; a process may send itself anything.
void send_bad_news(const void* address, short size_log2) {
    siginfo_t info{};
    info.si_signo = SIGBUS;
    info.si_code = BUS_MCEERR_AO;
    info.si_addr = const_cast<void*>(address);
    info.si_addr_lsb = size_log2;
    ASSERT_EQ(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info), 0);
}

TEST(DaxRegion, what_went_bad_unread_is_not_used_any_more) {
    const ShmFile file(4 * MiB);
    std::unique_ptr<Node> node;
    std::string message;
    ASSERT_EQ(Node::open(file.spec(), &node, &message), 0) << message;
    send_bad_news(node->region().bytes() + MiB + 100, 12);
    send_bad_news(node->region().bytes() + 2 * MiB, 12);
    EXPECT_EQ(node->store().quarantined_bytes(), 0u);
    const std::vector<std::byte> blob(3000, std::byte{0x77});
    std::vector<BlobRef> placed;
    for (BlobRef ref = node->place(blob); ref != no_blob; ref = node->place(blob)) placed.push_back(ref);
    EXPECT_EQ(node->counters.bad_ranges, 2u);
    EXPECT_GE(node->store().quarantined_bytes(), 8192u);
    for (const BlobRef ref : placed) {
        const auto at = static_cast<std::size_t>(node->store().bytes(ref).data() - node->region().bytes());
        EXPECT_TRUE(at + blob.size() <= MiB || (at >= MiB + 4096 && at + blob.size() <= 2 * MiB) ||
                    at >= 2 * MiB + 4096)
            << at;
    }
    EXPECT_EQ(node->store().validate(), nullptr);
}

TEST(DaxRegion, bad_news_end_no_load) {
    const ShmFile file(4 * MiB);
    const Opened opened = open_spec(file.spec());
    ASSERT_EQ(opened.error, 0);
    BadRange bad;
    int loaded = 0;
    EXPECT_TRUE(opened.region->load(
        [&] {
            send_bad_news(opened.region->bytes(), 12);
            ++loaded;
        },
        &bad));
    EXPECT_EQ(loaded, 1);
    ASSERT_TRUE(opened.region->next_bad_news(&bad));
    EXPECT_EQ(bad.address, reinterpret_cast<std::uintptr_t>(opened.region->bytes()));
    EXPECT_EQ(bad.bytes, 4096u);
    EXPECT_FALSE(opened.region->next_bad_news(&bad));
}

// They are none of the program's business: its system calls go on.
TEST(DaxRegion, bad_news_interrupt_no_call) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitizer has a handler, which is meant to interrupt";
#endif
    const ShmFile file(4 * MiB);
    const Opened opened = open_spec(file.spec());
    ASSERT_EQ(opened.error, 0);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    std::atomic<pid_t> reader{0};
    ssize_t got = -1;
    std::thread thread([&] {
        char byte = 0;
        reader = gettid();
        got = read(ends[0], &byte, 1);
    });
    while (reader == 0 || !test::sleeps(reader)) std::this_thread::yield();
    siginfo_t info{};
    info.si_signo = SIGBUS;
    info.si_code = BUS_MCEERR_AO;
    info.si_addr = opened.region->bytes() + MiB;
    info.si_addr_lsb = 12;
    sigset_t sigbus;
    sigset_t before;
    sigemptyset(&sigbus);
    sigaddset(&sigbus, SIGBUS);
    pthread_sigmask(SIG_BLOCK, &sigbus, &before);  // so that it is the reader who takes it
    EXPECT_EQ(syscall(SYS_rt_sigqueueinfo, getpid(), SIGBUS, &info), 0);
    BadRange bad;
    while (!opened.region->next_bad_news(&bad)) std::this_thread::yield();
    EXPECT_EQ(write(ends[1], "x", 1), 1);
    thread.join();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    EXPECT_EQ(got, 1);
    close(ends[0]);
    close(ends[1]);
}

// A sanitizer catches the signal, and ends the process with a code of its own.
bool ended_by_sigbus(int status) {
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGBUS;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return WEXITSTATUS(status) != 0;
#else
    return false;
#endif
}

// As without a node: the guard is in front of the default, and not instead of it.
TEST(DaxRegionDeathTest, what_is_sent_and_not_about_a_region_ends_the_process) {
    const ShmFile file(4 * MiB);
    const Opened opened = open_spec(file.spec());
    ASSERT_EQ(opened.error, 0);
    EXPECT_EXIT(kill(getpid(), SIGBUS), ended_by_sigbus, "");
    EXPECT_EXIT(send_bad_news(&file, 12), ended_by_sigbus, "");
}

// ---- NUMA ----

class Sysfs : public ::testing::Test {
  protected:
    fs::path root_ = fs::temp_directory_path() / ("pnode-sysfs-" + std::to_string(getpid()));
    void SetUp() override { set_sysfs_root(root_.c_str()); }
    void TearDown() override {
        set_sysfs_root("/sys");
        fs::remove_all(root_);
    }
    void write(const std::string& name, const std::string& text) {
        fs::create_directories((root_ / name).parent_path());
        std::ofstream(root_ / name) << text << '\n';
    }
    void add_node(int number, const char* cpus, unsigned total_mib, unsigned free_mib) {
        const std::string folder = "devices/system/node/node" + std::to_string(number) + "/";
        const std::string head = "Node " + std::to_string(number) + " ";
        write(folder + "cpulist", cpus);
        write(folder + "meminfo", head + "MemTotal:       " + std::to_string(total_mib * 1024) + " kB\n" +
                                      head + "MemFree:        " + std::to_string(free_mib * 1024) + " kB");
    }
};

TEST_F(Sysfs, devices_and_nodes_are_listed_with_what_the_platform_states) {
    write("bus/dax/devices/dax0.0/size", "1054867456");
    write("bus/dax/devices/dax0.0/align", "2097152");
    write("bus/dax/devices/dax0.0/target_node", "1");
    write("bus/dax/devices/dax0.0/dev", "252:3");
    write("bus/dax/devices/dax0.0/resource", "0x101200000");
    add_node(0, "0-1", 8192, 4096);
    add_node(1, "", 1024, 900);
    write("devices/system/node/node1/access0/initiators/read_latency", "250");
    write("devices/system/node/node1/access0/initiators/read_bandwidth", "30720");
    write("devices/system/node/node1/access0/initiators/write_latency", "270");
    write("devices/system/node/node1/access0/initiators/write_bandwidth", "15360");
    ASSERT_EQ(dax_devices().size(), 1u);
    const DaxDevice device = dax_devices()[0];
    EXPECT_EQ(device.path(), "/dev/dax0.0");
    EXPECT_EQ(device.size_bytes, 1054867456u);
    EXPECT_EQ(device.align_bytes, 2097152u);
    EXPECT_EQ(device.target_node, 1);
    EXPECT_EQ(device.resource, 0x101200000u);
    EXPECT_EQ(device.performance.read_latency_ns, 250u);
    EXPECT_EQ(device.performance.write_latency_ns, 270u);
    EXPECT_EQ(device.performance.read_bandwidth_mbps, 30720u);
    EXPECT_EQ(device.performance.write_bandwidth_mbps, 15360u);
    DaxDevice found;
    EXPECT_TRUE(find_dax_device(makedev(252, 3), &found));
    EXPECT_EQ(found.name, "dax0.0");
    EXPECT_FALSE(find_dax_device(makedev(252, 4), &found));
    const std::vector<NumaNode> nodes = numa_nodes();
    ASSERT_EQ(nodes.size(), 2u);
    EXPECT_TRUE(nodes[0].has_cpus);
    EXPECT_FALSE(nodes[1].has_cpus);
    EXPECT_EQ(nodes[1].free_bytes, 900 * MiB);
    EXPECT_EQ(nodes[1].performance.read_bandwidth_mbps, 30720u);
}

// access0 may be the figures of an adapter next to the memory.
TEST_F(Sysfs, the_processors_view_of_a_node_goes_first) {
    add_node(1, "", 1024, 900);
    const std::string node = "devices/system/node/node1/";
    write(node + "access0/initiators/read_latency", "90");
    NumaNode found;
    ASSERT_TRUE(find_numa_node(1, &found));
    EXPECT_EQ(found.performance.read_latency_ns, 90u);
    write(node + "access1/initiators/read_latency", "0");  // HMAT says nothing
    ASSERT_TRUE(find_numa_node(1, &found));
    EXPECT_EQ(found.performance.read_latency_ns, 90u);
    write(node + "access1/initiators/read_latency", "250");
    ASSERT_TRUE(find_numa_node(1, &found));
    EXPECT_EQ(found.performance.read_latency_ns, 250u);
}

// The node of a device comes when its memory is online, which a devdax device's is not.
TEST_F(Sysfs, a_device_of_a_cxl_region_has_the_regions_figures) {
    const std::string region = "devices/platform/ACPI0017:00/root0/decoder0.0/region0/";
    const std::string device = region + "dax_region0/dax0.0/";
    write(device + "size", "1073741824");
    write(device + "target_node", "2");
    fs::create_directories(root_ / "bus/dax/devices");
    fs::create_directory_symlink(root_ / device, root_ / "bus/dax/devices/dax0.0");
    ASSERT_EQ(dax_devices().size(), 1u);
    EXPECT_FALSE(dax_devices()[0].performance.is_known());
    EXPECT_EQ(dax_devices()[0].resource, 0u);
    write(region + "access0/read_latency", "300");
    write(region + "access1/read_latency", "310");
    write(region + "access1/read_bandwidth", "20000");
    EXPECT_EQ(dax_devices()[0].performance.read_latency_ns, 310u);
    EXPECT_EQ(dax_devices()[0].performance.read_bandwidth_mbps, 20000u);
    write("devices/system/node/node2/access0/initiators/read_latency", "320");
    EXPECT_EQ(dax_devices()[0].performance.read_latency_ns, 320u);
}

// SRAT and HMAT as ACPI has them, a structure at a time.
class FirmwareTable {
  public:
    explicit FirmwareTable(std::size_t header_bytes, char revision) : bytes_(header_bytes, '\0') {
        bytes_[8] = revision;
    }
    template <class Number>
    FirmwareTable& add(Number number) {
        for (std::size_t i = 0; i < sizeof number; ++i, number = static_cast<Number>(number >> 4 >> 4))
            bytes_ += static_cast<char>(number);
        return *this;
    }
    template <class Number, class... More>
    FirmwareTable& add(Number number, More... more) {
        return add(number).add(more...);
    }
    const std::string& bytes() const { return bytes_; }

  private:
    std::string bytes_;
};

using U8 = std::uint8_t;
using U16 = std::uint16_t;
using U32 = std::uint32_t;
using U64 = std::uint64_t;

void add_processor(FirmwareTable* srat, U8 domain) {
    srat->add(U8{0}, U8{16}, domain, U8{0}, U32{1}, U32{0}, U32{0});
}

void add_memory(FirmwareTable* srat, U32 domain, U64 base, U64 bytes) {
    srat->add(U8{1}, U8{40}, domain, U16{0}, base, bytes, U32{0}, U32{1}, U64{0});
}

// From the domains 0, 1 and 5 to the domains 0 and 7.
void add_locality(FirmwareTable* hmat, U8 data_type, U64 unit, std::array<U16, 6> entries) {
    hmat->add(U16{1}, U16{0}, U32{32 + 4 * 5 + 2 * 6}, U8{0}, data_type, U16{0}, U32{3}, U32{2}, U32{0},
              unit);
    hmat->add(U32{0}, U32{1}, U32{5}, U32{0}, U32{7});
    for (const U16 entry : entries) hmat->add(entry);
}

class FirmwareTables : public Sysfs {
  protected:
    static constexpr U64 base = 0x1'0000'0000;
    FirmwareTable srat_{48, 3};
    FirmwareTable hmat_{40, 2};
    void SetUp() override {
        Sysfs::SetUp();
        write("bus/dax/devices/dax0.0/size", "268435456");
        write("bus/dax/devices/dax0.0/target_node", "1");
        write("bus/dax/devices/dax0.0/resource", "0x110000000");
        add_processor(&srat_, 0);
        add_processor(&srat_, 1);
        add_memory(&srat_, 0, 0, base);
        add_memory(&srat_, 7, base, 0x2000'0000);
    }
    Performance told() {
        fs::create_directories(root_ / "firmware/acpi/tables");
        std::ofstream(root_ / "firmware/acpi/tables/SRAT", std::ios::binary) << srat_.bytes();
        std::ofstream(root_ / "firmware/acpi/tables/HMAT", std::ios::binary) << hmat_.bytes();
        return dax_devices().at(0).performance;
    }
};

// The node of such a device is not online, and sysfs has nothing of it. Domain 5 has no processor.
TEST_F(FirmwareTables, a_device_has_the_figures_of_its_address_from_the_best_processors) {
    EXPECT_FALSE(told().is_known());
    add_locality(&hmat_, 0, 1000, {100, 400, 100, 350, 1, 2});
    add_locality(&hmat_, 4, 512, {120, 30, 120, 0xffff, 900, 900});
    add_locality(&hmat_, 5, 512, {120, 0, 120, 20, 900, 900});
    EXPECT_EQ(told().read_latency_ns, 350u);
    EXPECT_EQ(told().write_latency_ns, 350u);
    EXPECT_EQ(told().read_bandwidth_mbps, 30u * 512);
    EXPECT_EQ(told().write_bandwidth_mbps, 20u * 512);
    hmat_.add(U16{0}, U16{0}, U32{40}, U16{1}, U16{0}, U32{0}, U32{7}, U64{0}, U64{0}, U32{0});
    EXPECT_EQ(told().read_latency_ns, 400u);  // of the processors that the platform calls next to it
    write("devices/system/node/node1/access0/initiators/read_latency", "250");
    EXPECT_EQ(told().read_latency_ns, 250u);  // what the kernel says goes first
}

TEST_F(FirmwareTables, the_first_revision_counts_in_tenths_and_caches_are_left_out) {
    hmat_ = FirmwareTable(40, 1);
    add_locality(&hmat_, 1, 10, {100, 401, 100, 401, 1, 2});
    hmat_.add(U16{1}, U16{0}, U32{42}, U8{1}, U8{1}, U16{0}, U32{1}, U32{1}, U32{0}, U64{10}, U32{0}, U32{7},
              U16{3});
    EXPECT_EQ(told().read_latency_ns, 401u);
    EXPECT_EQ(told().write_latency_ns, 0u);
}

TEST_F(FirmwareTables, tables_cut_short_say_less_and_nothing_wrong) {
    add_locality(&hmat_, 0, 1000, {100, 400, 100, 400, 1, 2});
    ASSERT_EQ(told().read_latency_ns, 400u);
    for (const auto& [name, whole] : {std::pair{"SRAT", srat_.bytes()}, {"HMAT", hmat_.bytes()}}) {
        for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
            const fs::path path = root_ / "firmware/acpi/tables" / name;
            std::ofstream(path, std::ios::binary) << whole.substr(0, bytes);
            const std::uint64_t latency = dax_devices().at(0).performance.read_latency_ns;
            EXPECT_TRUE(latency == 0 || latency == 400) << name << " of " << bytes;
            std::ofstream(path, std::ios::binary) << whole;
        }
    }
}

// /dev/null, said to be a devdax device: all but its memory is there.
class SaidToBeDax : public Sysfs {
  protected:
    static constexpr const char* spec = "dax:/dev/null";
    const std::string device = "bus/dax/devices/dax0.0/";
    void SetUp() override {
        Sysfs::SetUp();
        write(device + "dev", "1:3");
        write(device + "size", "1073741824");
        write(device + "align", "2097152");
    }
};

TEST_F(SaidToBeDax, ranges_off_its_alignment_or_its_end_are_refused) {
    const std::string range = std::string(spec) + ":";
    expect_refused(range + "4K+2M", EINVAL, "multiples of its alignment, 2.0 MiB");
    expect_refused(range + "0+4K", EINVAL, "multiples of its alignment, 2.0 MiB");
    expect_refused(range + "1G+2M", EINVAL, "has 1.0 GiB: name a range within it");
    expect_refused(range + "2M+1G", EINVAL, "has 1.0 GiB: name a range within it");
}

TEST_F(SaidToBeDax, one_that_shrank_is_refused_for_what_it_has_now) {
    write(device + "size", "4194304");
    expect_refused(std::string(spec) + ":0+8M", EINVAL, "has 4.0 MiB: name a range within it");
    write(device + "size", "0");  // daxctl reconfigure-device -s 0
    expect_refused(spec, EINVAL, "has 0 B: name a range within it");
}

TEST_F(SaidToBeDax, one_that_is_ordinary_memory_is_busy) {
    fs::create_directories(root_ / "bus/dax/drivers/kmem");
    fs::create_directory_symlink(root_ / "bus/dax/drivers/kmem", root_ / device / "driver");
    expect_refused(spec, EBUSY, "daxctl reconfigure-device --mode=devdax dax0.0");
}

// A device number that no driver has taken.
TEST_F(Sysfs, a_device_without_a_driver_is_refused_and_the_cure_is_named) {
    const fs::path path = root_ / "dax7.7";
    fs::create_directories(root_);
    if (mknod(path.c_str(), S_IFCHR | 0600, makedev(4000, 7)) != 0)
        GTEST_SKIP() << "no device can be made here: " << std::strerror(errno);
    const Opened opened = open_spec("dax:" + path.string());
    if (opened.error == EACCES) GTEST_SKIP() << "a file system that has no devices";
    EXPECT_EQ(opened.error, ENXIO);
    EXPECT_NE(opened.message.find("daxctl reconfigure-device --mode=devdax"), std::string::npos)
        << opened.message;
}

TEST_F(SaidToBeDax, one_that_cannot_be_mapped_is_no_region) {
    expect_refused(spec, ENODEV, "mmap: No such device: name a range at multiples");
}

TEST_F(Sysfs, nodes_that_cannot_be_had_are_refused_and_the_cure_is_named) {
    add_node(0, "0-1", 8192, 4096);
    add_node(1, "", 1024, 100);
    expect_refused("numa:7:1M", ENODEV, "pnode probe");
    expect_refused("numa:0:1M", EINVAL, "has CPUs");
    expect_refused("numa:1:512M", ENOSPC, "can give 36.0 MiB of its 1.0 GiB");
}

// An administrator has closed a node when no group beside ours, on the way down to it, may use it.
TEST_F(Sysfs, a_node_is_open_until_every_other_group_is_kept_out) {
    constexpr const char* own = "0::/pnode.slice/pnode-a.service\n";
    EXPECT_TRUE(is_open_to_others(2, ""));
    EXPECT_TRUE(is_open_to_others(2, "0::/\n"));
    write("fs/cgroup/pnode.slice/cpuset.mems.effective", "0-3");
    write("fs/cgroup/pnode.slice/pnode-a.service/cpuset.mems.effective", "2");
    write("fs/cgroup/cgroup.procs", "2");
    EXPECT_FALSE(is_open_to_others(2, own));
    write("fs/cgroup/system.slice/cpuset.mems.effective", "0,1-3");
    EXPECT_TRUE(is_open_to_others(2, own));
    write("fs/cgroup/system.slice/cpuset.mems.effective", "0-1,3,12");
    EXPECT_FALSE(is_open_to_others(2, own));
    EXPECT_TRUE(is_open_to_others(12, own));
    write("fs/cgroup/pnode.slice/pnode-b.service/cgroup.procs", "");  // has what its parent has
    EXPECT_TRUE(is_open_to_others(2, own));
    write("fs/cgroup/pnode.slice/pnode-b.service/cpuset.mems.effective", "0");
    EXPECT_FALSE(is_open_to_others(2, own));
    EXPECT_FALSE(is_open_to_others(2, "4:memory:/x\n" + std::string(own)));
}

TEST_F(Sysfs, what_a_node_is_open_to_is_said_with_the_cure) {
    NumaNode node;
    node.number = 2;
    EXPECT_NE(numa_notice(node).find("node 2 is open to ordinary allocations"), std::string::npos);
    EXPECT_NE(numa_notice(node).find("AllowedMemoryNodes"), std::string::npos);
    EXPECT_EQ(numa_notice(node).find("demotion"), std::string::npos);
    node.demotion_targets = true;
    EXPECT_NE(numa_notice(node).find("echo false > /sys/kernel/mm/numa/demotion_enabled"), std::string::npos);
}

// Node 0 is real, and only said to have no CPU.
TEST_F(Sysfs, a_nodes_memory_is_bound_filled_and_looked_at) {
    add_node(0, "", 8192, 4096);
    const Opened opened = open_spec("numa:0:4M");
    ASSERT_EQ(opened.error, 0) << opened.message;
    EXPECT_STREQ(opened.region->kind(), "numa");
    EXPECT_EQ(resident_bytes(*opened.region), 4 * MiB);
    EXPECT_NE(opened.region->notice().find("cpuset.mems"), std::string::npos);
    std::memset(opened.region->bytes(), 1, 4 * MiB);
    EXPECT_EQ(opened.region->discard(0, MiB), 0);
    EXPECT_EQ(opened.region->bytes()[MiB - 1], std::byte{0});
    EXPECT_EQ(resident_bytes(*opened.region), 4 * MiB);  // the node might not have them a second time
}

TEST_F(Sysfs, a_node_that_is_not_there_gives_no_memory_from_elsewhere) {
    add_node(9, "", 8192, 4096);  // only said to be there
    const Opened opened = open_spec("numa:9:4M");
    EXPECT_EQ(opened.error, EINVAL) << opened.message;
    EXPECT_NE(opened.message.find("cpuset.mems"), std::string::npos) << opened.message;
}

TEST_F(Sysfs, automatic_says_what_it_chose_and_why) {
    const Opened bare = open_spec("auto:4M");
    ASSERT_EQ(bare.error, 0) << bare.message;
    EXPECT_STREQ(bare.region->kind(), "memory");
    EXPECT_NE(bare.region->notice().find("no devdax device"), std::string::npos) << bare.region->notice();
    write("bus/dax/devices/dax9.9/size", "1054867456");  // its node in /dev is missing
    const Opened without = open_spec("auto:4M");
    EXPECT_STREQ(without.region->kind(), "memory");
    EXPECT_NE(without.region->notice().find("not dax:/dev/dax9.9: No such file"), std::string::npos)
        << without.region->notice();
}

// Node 0 is real, and only said to have no CPU; what it is said to be able to give is free less 32 MiB.
TEST_F(Sysfs, automatic_passes_over_a_node_that_is_as_good_as_full) {
    add_node(0, "", 512, 32 + 63);
    const Opened full = open_spec("auto:4M");
    ASSERT_EQ(full.error, 0) << full.message;
    EXPECT_STREQ(full.region->kind(), "memory");
    EXPECT_NE(full.region->notice().find("not numa:0 can give 63.0 MiB"), std::string::npos)
        << full.region->notice();
    add_node(0, "", 512, 32 + 64);
    EXPECT_STREQ(open_spec("auto:4M").region->kind(), "numa");
    EXPECT_STREQ(open_spec("auto:65M").region->kind(), "memory");
}

// ---- a device that compresses ----

std::vector<std::byte> random_page(std::mt19937_64& random) {
    std::vector<std::byte> page(4096);
    for (std::byte& byte : page) byte = static_cast<std::byte>(random());
    return page;
}

class Simulated : public ::testing::Test {
  protected:
    void SetUp() override {
        opened_ = open_spec("sim:4M,physical=1M");
        ASSERT_EQ(opened_.error, 0) << opened_.message;
        device_ = opened_.region->device();
        ASSERT_NE(device_, nullptr);
    }
    bool readable(std::size_t page) {
        BadRange bad;
        volatile int seen = 0;
        return device_->load([&] { seen = static_cast<int>(device_->bytes()[page * 4096]); }, &bad);
    }
    Opened opened_;
    SimulatedDevice* device_ = nullptr;
    std::mt19937_64 random_{7};
};

TEST_F(Simulated, what_is_stored_costs_what_it_compresses_to) {
    EXPECT_EQ(device_->store(0, std::vector<std::byte>(4096, std::byte{7})), true);
    EXPECT_GT(device_->used_bytes(), 0u);
    EXPECT_LE(device_->used_bytes(), 128u);
    device_->store(4096, random_page(random_));
    EXPECT_GE(device_->used_bytes(), 4096u);
    device_->clear(0, 8192);
    EXPECT_EQ(device_->used_bytes(), 0u);
}

TEST_F(Simulated, past_its_limit_stores_are_dropped_and_loads_raise_sigbus) {
    for (std::size_t page = 0; page < 300; ++page) device_->store(page * 4096, random_page(random_));
    EXPECT_EQ(device_->poisoned_pages(), 300u - 256u);
    EXPECT_TRUE(readable(255));
    EXPECT_FALSE(readable(256));
    device_->clear(0, 64 * 4096);
    device_->store(256 * 4096, random_page(random_));  // writing makes it good again
    EXPECT_TRUE(readable(256));
}

TEST_F(Simulated, a_refused_trim_is_repeated_eight_times_and_then_cleared) {
    device_->store(0, random_page(random_));
    device_->behaviour.trim_refusals = 5;
    EXPECT_EQ(device_->discard(0, 4096), 0);
    EXPECT_EQ(device_->trim_retries(), 5u);
    EXPECT_EQ(device_->used_bytes(), 0u);
    device_->store(0, random_page(random_));
    device_->behaviour.trim_refusals = 1000;
    EXPECT_EQ(device_->discard(0, 4096), 0);
    EXPECT_EQ(device_->trim_retries(), 5u + SimulatedDevice::trim_retries_max);
    EXPECT_EQ(device_->used_bytes(), 0u);
    EXPECT_EQ(device_->bytes()[100], std::byte{0});
}

}  // namespace
}  // namespace pnode::cxl
