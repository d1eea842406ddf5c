// pnode-bench-malloc with little work: the form of its answers, and that each process has its allocator.
#include <gmock/gmock.h>

#include <set>

#include "tests/bench/json_lines.h"

namespace pnode::test {
namespace {

using ::testing::HasSubstr;

TEST(BenchMalloc, RunsEveryWorkloadWithEveryAllocator) {
    const Lines lines = json_lines({BENCH_MALLOC, "--json", "--live", "16M", "--allocations", "20000",
                                    "--processes", "2", "--rounds", "1", "--threads", "1,2"});
    expect_header(lines[0], "pnode-bench-malloc");
    std::set<std::string> rows;
    for (std::size_t row = 1; row < lines.size(); ++row) {
        const nlohmann::json& line = lines[row];
        rows.insert(line["workload"].get<std::string>() + " " + line["allocator"].get<std::string>() + " " +
                    line["threads"].dump());
        EXPECT_GT(line["mallocs_per_s"].get<double>(), 0) << line;
        EXPECT_GT(line["ratio_to_jemalloc"].get<double>(), 0) << line;
    }
    EXPECT_EQ(rows.size(), 4u * 3u * 2u);
    EXPECT_EQ(rows.count("passed pnode 2"), 1u);
}

TEST(BenchMalloc, RefusesWhatItWouldNotMeasure) {
    const Outcome no_library = run_command(
        {BENCH_MALLOC, "--processes", "1", "--allocations", "10000", "--jemalloc", "/no/such/library.so"});
    EXPECT_EQ(no_library.exit_code, 1);
    EXPECT_THAT(no_library.errors, HasSubstr("does with libc"));
    const Outcome no_workload = run_command({BENCH_MALLOC, "--workloads", "nothing"});
    EXPECT_NE(no_workload.exit_code, 0);
    EXPECT_THAT(no_workload.errors, HasSubstr("mixed"));
}

}  // namespace
}  // namespace pnode::test
