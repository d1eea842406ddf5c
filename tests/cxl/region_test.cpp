#include "cxl/region.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cxl/sizes.h"
#include "tests/cxl/store_fixture.h"

namespace pnode::cxl {
namespace {

int open_spec(const std::string& spec, std::unique_ptr<Region>* region, std::string* message) {
    const int error = open_region(spec, region, message);
    EXPECT_EQ(error == 0, *region != nullptr) << spec;
    EXPECT_EQ(error == 0, message->empty()) << spec;
    EXPECT_EQ(message->find('\n'), std::string::npos) << spec;
    return error;
}

TEST(Region, of_memory_is_zero_writable_and_as_large_as_asked) {
    std::unique_ptr<Region> region;
    std::string message;
    ASSERT_EQ(open_spec("memory:3M", &region, &message), 0) << message;
    EXPECT_STREQ(region->kind(), "memory");
    ASSERT_EQ(region->size_bytes(), 3 * MiB);
    EXPECT_EQ(resident_bytes(*region), 0u);
    EXPECT_EQ(region->bytes()[3 * MiB - 1], std::byte{0});
    region->bytes()[3 * MiB - 1] = std::byte{7};
    EXPECT_EQ(region->bytes()[3 * MiB - 1], std::byte{7});
}

TEST(Region, size_is_rounded_up_to_pages_and_may_be_a_share) {
    std::unique_ptr<Region> region;
    std::string message;
    ASSERT_EQ(open_spec("memory:5000", &region, &message), 0) << message;
    EXPECT_EQ(region->size_bytes(), 8192u);
    region.reset();
    ASSERT_EQ(open_spec("memory:10%", &region, &message), 0) << message;
    EXPECT_GE(region->size_bytes(), memory_bytes_available() / 10);
    EXPECT_LT(region->size_bytes(), memory_bytes_available() / 10 + 4096);
}

TEST(Region, bad_specs_are_refused_and_the_cure_is_named) {
    for (const char* spec : {"",
                             ":",
                             "memory",
                             "memory:",
                             "memory:0",
                             "memory:-1",
                             "memory:1X",
                             "memory:1M ",
                             " memory:1M",
                             "Memory:1M",
                             "memory:99999999999999999999",
                             "memory:1M:1M",
                             "memory:101%",
                             "file:1M",
                             "1M",
                             "dax",
                             "dax:",
                             "dax:dax0.0",
                             "dax:/dev/dax0.0:",
                             "dax:/dev/dax0.0:1G",
                             "dax:/dev/dax0.0:1G+",
                             "dax:/dev/dax0.0:x+1G",
                             "numa",
                             "numa:",
                             "numa:-1",
                             "numa:1x",
                             "numa:1024",
                             "numa:1:",
                             "auto:",
                             "auto:x",
                             "sim",
                             "sim:",
                             "sim:1M,",
                             "sim:1M,ratio",
                             "sim:1M,ratio=0.5",
                             "sim:1M,ratio=65",
                             "sim:1M,x=1",
                             "sim:1M,physical=2M"}) {
        std::unique_ptr<Region> region;
        std::string message;
        EXPECT_EQ(open_spec(spec, &region, &message), EINVAL) << spec;
        EXPECT_TRUE(message.find("write ") != std::string::npos) << message;
        EXPECT_EQ(open_region(spec, &region, nullptr), EINVAL);
    }
}

TEST(Region, larger_than_the_machine_is_ENOMEM) {
    for (const std::string& spec :
         {"memory:" + std::to_string(physical_memory_bytes() + 1), std::string("memory:8000000T")}) {
        std::unique_ptr<Region> region;
        std::string message;
        EXPECT_EQ(open_spec(spec, &region, &message), ENOMEM);
        EXPECT_NE(message.find("memory:50%"), std::string::npos) << message;
    }
}

TEST(Region, discard_reads_zero_and_gives_the_pages_back) {
    const auto region = make_region(1 * MiB);
    std::memset(region->bytes(), 0x5a, 1 * MiB);
    EXPECT_EQ(resident_bytes(*region), 1 * MiB);
    EXPECT_EQ(region->discard(64 * KiB, 128 * KiB), 0);
    EXPECT_EQ(resident_bytes(*region), 1 * MiB - 128 * KiB);
    for (std::size_t at = 0; at < 1 * MiB; ++at) {
        const bool discarded = at >= 64 * KiB && at < 192 * KiB;
        ASSERT_EQ(region->bytes()[at], (discarded ? std::byte{0} : std::byte{0x5a})) << at;
    }
    region->bytes()[64 * KiB] = std::byte{1};
    EXPECT_EQ(region->bytes()[64 * KiB], std::byte{1});
}

TEST(Region, descriptor_is_above_100_closes_on_exec_and_cannot_be_truncated) {
    auto region = make_region(1 * MiB);
    const int descriptor = region->descriptor();
    EXPECT_GT(descriptor, 100);
    EXPECT_EQ(fcntl(descriptor, F_GETFD), FD_CLOEXEC);
    EXPECT_NE(ftruncate(descriptor, 0), 0);
    EXPECT_NE(ftruncate(descriptor, 2 * MiB), 0);
    region.reset();
    EXPECT_EQ(fcntl(descriptor, F_GETFD), -1);
}

TEST(Region, takes_no_low_descriptor) {
    const int before = dup(0);
    close(before);
    const auto region = make_region(1 * MiB);
    const int after = dup(0);
    close(after);
    EXPECT_EQ(before, after);
}

TEST(Region, without_a_descriptor_above_100_is_EMFILE) {
    rlimit old{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    const rlimit few{64, old.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    std::unique_ptr<Region> region;
    std::string message;
    EXPECT_EQ(open_spec("memory:1M", &region, &message), EMFILE);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    EXPECT_NE(message.find("ulimit -n"), std::string::npos) << message;
}

}  // namespace
}  // namespace pnode::cxl
