// pnode-bench-scale and pnode-bench-fault with little work: the form of their answers.
#include <gmock/gmock.h>

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
                                    "1", "--cases", "far-random,demote"});
    expect_header(lines[0], "pnode-bench-fault");
    unsigned floors = 0;
    for (const nlohmann::json& line : lines) {
        if (line.value("engine", "") != "floor") continue;
        ++floors;
        EXPECT_EQ(line["case"], "far-random") << "it compresses nothing";
        EXPECT_GT(line["p50_ns"].get<double>(), 0);
    }
    EXPECT_EQ(floors, 2u) << "uncompressed, and with what decoding costs";
}

}  // namespace
}  // namespace pnode::test
