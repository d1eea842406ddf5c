#include "cxl/sizes.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace pnode {
namespace {

struct Good {
    const char* text;
    std::uint64_t bytes;
};

TEST(ParseSize, takes_what_the_grammar_says) {
    const Good all[] = {{"1", 1},
                        {"4096", 4096},
                        {"007", 7},
                        {"1K", 1024},
                        {"1k", 1024},
                        {"1KB", 1024},
                        {"1kib", 1024},
                        {"64M", 64ull << 20},
                        {"64MiB", 64ull << 20},
                        {"1.5G", 3ull << 29},
                        {"0.5k", 512},
                        {"2T", 2ull << 40},
                        {"2tb", 2ull << 40},
                        {"1.999999999K", 2047},
                        {"9223372036854775807", 9223372036854775807ull},
                        {"8388607T", 8388607ull << 40}};
    for (const Good& good : all) {
        std::uint64_t bytes = 0;
        std::string why;
        EXPECT_TRUE(parse_size(good.text, &bytes, &why)) << why;
        EXPECT_EQ(bytes, good.bytes) << good.text;
    }
}

TEST(ParseSize, takes_a_share_of_the_memory_available) {
    const std::uint64_t all = memory_bytes_available();
    std::uint64_t bytes = 0;
    ASSERT_TRUE(parse_size("100%", &bytes, nullptr));
    EXPECT_EQ(bytes, all);
    ASSERT_TRUE(parse_size("50%", &bytes, nullptr));
    EXPECT_EQ(bytes, all / 2);
    ASSERT_TRUE(parse_size("12.5%", &bytes, nullptr));
    EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(all) / 8, 2);
}

TEST(ParseSize, refuses_everything_else_with_a_reason) {
    const char* all[] = {"",
                         " ",
                         "0",
                         "0M",
                         "0%",
                         "0.0G",
                         "0.000000001",
                         "-1",
                         "+1",
                         " 1",
                         "1 ",
                         "1 M",
                         "M",
                         "%",
                         ".5G",
                         "1.",
                         "1.M",
                         "1.5",
                         "1..5M",
                         "1.5.5M",
                         "1,5M",
                         "1e9",
                         "0x10",
                         "1MM",
                         "1Mi",
                         "1MiBB",
                         "1iB",
                         "1B",
                         "1P",
                         "1%%",
                         "1%M",
                         "1M%",
                         "101%",
                         "100.1%",
                         "9223372036854775808",
                         "99999999999999999999999999999999999999999999999999",
                         "8388608T",
                         "1.0000000001G",
                         "0.0000001K",
                         "1M\n",
                         "nan",
                         "inf",
                         "4096\xc2\xa0"};
    for (const char* text : all) {
        std::uint64_t bytes = 77;
        std::string why;
        EXPECT_FALSE(parse_size(text, &bytes, &why)) << text;
        EXPECT_EQ(bytes, 77u) << text;
        EXPECT_NE(why.find("is not a size: "), std::string::npos) << text;
        EXPECT_FALSE(parse_size(text, &bytes, nullptr)) << text;
    }
    std::uint64_t bytes = 0;
    EXPECT_FALSE(parse_size(std::string_view("1\0M", 3), &bytes, nullptr));
}

TEST(FormatSize, is_short) {
    EXPECT_EQ(format_size(0), "0 B");
    EXPECT_EQ(format_size(4096), "4096 B");
    EXPECT_EQ(format_size(64 << 10), "64.0 KiB");
    EXPECT_EQ(format_size(12 << 20), "12.0 MiB");
    EXPECT_EQ(format_size((1 << 20) - 1), "1.0 MiB");
    EXPECT_EQ(format_size(3ull << 29), "1.5 GiB");
    EXPECT_EQ(format_size(5000ull << 40), "5000.0 TiB");
}

// A pretended /sys/fs/cgroup.
struct CgroupLimit : testing::Test {
    CgroupLimit() {
        std::string pattern = testing::TempDir() + "cgroup-XXXXXX";
        if (mkdtemp(pattern.data()) == nullptr) abort();
        root = pattern;
    }
    ~CgroupLimit() override { std::filesystem::remove_all(root); }
    void write(const std::string& path, const std::string& text) const {
        std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
        std::ofstream(root + path) << text;
    }
    std::string root;
};

TEST_F(CgroupLimit, of_version_2_is_the_lowest_on_the_way_up) {
    write("/a/memory.max", "1000000\n");
    write("/a/b/memory.max", "2000000\n");
    write("/a/b/c/memory.max", "max\n");
    EXPECT_EQ(cgroup_memory_bytes_max("0::/a/b/c\n", root), 1000000u);
    write("/a/b/c/memory.max", "500\n");
    EXPECT_EQ(cgroup_memory_bytes_max("0::/a/b/c\n", root), 500u);
}

TEST_F(CgroupLimit, of_version_1_is_found_by_its_controller) {
    write("/memory/job/memory.limit_in_bytes", "3000000\n");
    write("/memory/memory.limit_in_bytes", "9223372036854771712\n");
    EXPECT_EQ(cgroup_memory_bytes_max("5:cpu,cpuacct:/x\n4:memory:/job\n1:name=systemd:/y\n", root),
              3000000u);
    EXPECT_EQ(cgroup_memory_bytes_max("4:cpu,memory:/job\n", root), 3000000u);
    EXPECT_EQ(cgroup_memory_bytes_max("4:memory2:/job\n", root), UINT64_MAX);
}

TEST_F(CgroupLimit, of_a_container_is_at_its_root_though_the_path_is_not_there) {
    write("/memory/memory.limit_in_bytes", "4000000\n");
    EXPECT_EQ(cgroup_memory_bytes_max("4:memory:/docker/0123\n", root), 4000000u);
    write("/memory.max", "5000000\n");
    EXPECT_EQ(cgroup_memory_bytes_max("0::/\n", root), 5000000u);
}

TEST_F(CgroupLimit, is_none_when_nothing_says_so) {
    write("/memory.max", "max\n");
    EXPECT_EQ(cgroup_memory_bytes_max("0::/\n", root), UINT64_MAX);
    EXPECT_EQ(cgroup_memory_bytes_max("", root), UINT64_MAX);
    EXPECT_EQ(cgroup_memory_bytes_max("nonsense\n:\n::\n", root), UINT64_MAX);
    EXPECT_EQ(cgroup_memory_bytes_max("0::/\n", root + "/missing"), UINT64_MAX);
}

TEST(MemoryBytesAvailable, is_never_zero_nor_more_than_there_is) {
    EXPECT_GT(memory_bytes_available(), 0u);
    EXPECT_LE(memory_bytes_available(), physical_memory_bytes());
}

}  // namespace
}  // namespace pnode
