// pnode-bench-scale and pnode-bench-fault with little work: the form of their answers.
#include <gmock/gmock.h>

#include <set>

#include "tests/bench/json_lines.h"

namespace pnode::test {
namespace {

TEST(BenchScale, GivesEveryHeapARowAndProvesEveryPage) {
    const Lines lines = json_lines({BENCH_SCALE, "--json", "--dense", "64M", "--sparse-pages", "4096",
                                    "--near", "4M", "--touches", "1000", "--rounds", "2"});
    expect_header(lines[0], "pnode-bench-scale");
    ASSERT_EQ(lines.size(), 3u);
    EXPECT_EQ(lines[1]["heap"], "64 MiB");
    EXPECT_EQ(lines[1]["pages"], 16384);
    EXPECT_EQ(lines[1]["read_ratio"], 1.0);
    EXPECT_EQ(lines[2]["pages"], 4096);
    for (std::size_t row = 1; row < lines.size(); ++row) {
        for (const char* field : {"open_ns", "read_ns", "write_ns", "read_ratio", "write_ratio"})
            EXPECT_GT(lines[row][field].get<double>(), 0) << field;
        EXPECT_GT(lines[row]["far_share"].get<double>(), 0.7) << "the near limit holds in a sparse heap too";
    }
}

TEST(BenchFault, HasTheKernelsPartBesideTheOthers) {
    const Lines lines = json_lines({BENCH_FAULT, "--json", "--pages", "512", "--rounds", "1", "--threads",
                                    "1", "--cases", "far,demote"});
    expect_header(lines[0], "pnode-bench-fault");
    std::set<std::string> floors;
    for (const nlohmann::json& line : lines) {
        const std::string engine = line.value("engine", "");
        if (engine != "floor" && engine != "floor-16") continue;
        floors.insert(line["case"].get<std::string>() + " " + engine + " " +
                      line["codec"].get<std::string>());
        EXPECT_GT(line["p50_ns"].get<double>(), 0);
    }
    // Uncompressed, and with what decoding costs; runs only where pages are read in sequence; compressing,
    // and nothing that a kept blob could save.
    const std::set<std::string> expected = {"far-random floor -",          "far-random floor lz4",
                                            "far-sequential floor -",      "far-sequential floor lz4",
                                            "far-sequential floor-16 lz4", "demote floor lz4"};
    EXPECT_EQ(floors, expected);
}

}  // namespace
}  // namespace pnode::test
