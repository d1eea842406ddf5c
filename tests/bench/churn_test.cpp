// pnode-bench-churn with as little work as it takes: the form of its answers, with privilege and without.
#include <gmock/gmock.h>

#include "tests/bench/json_lines.h"

namespace pnode::test {
namespace {

const std::vector<std::string> little = {BENCH_CHURN, "--json",   "--pages", "1024",      "--accesses",
                                         "1000",      "--rounds", "2",       "--threads", "1"};

// Numbers and a ratio, or nulls and the reason.
void expect_complete(const nlohmann::json& row) {
    for (const char* field : {"case", "engine", "threads", "near_percent", "per_s", "p50_ns", "p99_ns",
                              "cpu_ns", "near_bytes", "far_bytes", "ratio_to_zram", "reason"})
        ASSERT_TRUE(row.contains(field)) << field << ": " << row;
    if (row["per_s"].is_null() || row["ratio_to_zram"].is_null()) {
        EXPECT_TRUE(row["reason"].is_string() && !row["reason"].get<std::string>().empty()) << row;
    }
    if (row["per_s"].is_null()) return;
    EXPECT_GT(row["per_s"].get<double>(), 0) << row;
    if (row["engine"] == "zram") {
        EXPECT_EQ(row["ratio_to_zram"], 1.0) << row;
    }
}

const nlohmann::json* find(const Lines& lines, const std::string& name, const std::string& engine) {
    for (const nlohmann::json& line : lines)
        if (line.value("case", "") == name && line.value("engine", "") == engine) return &line;
    return nullptr;
}

TEST(BenchChurn, GivesEveryCaseAndVariantARow) {
    const Lines lines = json_lines(little);
    expect_header(lines[0], "pnode-bench-churn");
    EXPECT_EQ(lines.size(), 1u + 4 * 7 + 6 + 4 + 2)
        << "a steady working set is no matter of the total, nor of the floors";
    for (std::size_t i = 1; i < lines.size(); ++i) expect_complete(lines[i]);
    const nlohmann::json* churn = find(lines, "read-uniform", "inline");
    ASSERT_TRUE(churn != nullptr && churn->at("per_s").is_number()) << "the inline engine needs no privilege";
    EXPECT_GT(churn->at("far_bytes"), 0) << "half of the pages cannot be near";
    EXPECT_LE(churn->at("near_bytes"), 1024 / 2 * 4096);
    const nlohmann::json* copies = find(lines, "read-uniform", "floor");
    const nlohmann::json* blobs = find(lines, "read-uniform", "floor-lz4");
    ASSERT_TRUE(copies != nullptr && blobs != nullptr);
    EXPECT_LT(blobs->at("far_bytes"), copies->at("far_bytes")) << "blobs, not pages, lie ready";
    const nlohmann::json* steady = find(lines, "steady", "inline");
    ASSERT_NE(steady, nullptr);
    EXPECT_TRUE(steady->at("background_cpu_percent").is_number());
}

TEST(BenchChurn, WithoutPrivilegeSaysWhatIsMissing) {
    std::vector<std::string> command = little;
    if (geteuid() == 0)
        command.insert(command.begin(), {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"});
    command.insert(command.end(), {"--cases", "read-uniform"});
    const Lines lines = json_lines(command);
    ASSERT_EQ(lines.size(), 1u + 9);
    for (std::size_t i = 1; i < lines.size(); ++i) expect_complete(lines[i]);
    const nlohmann::json* zram = find(lines, "read-uniform", "zram");
    ASSERT_NE(zram, nullptr);
    EXPECT_TRUE(zram->at("per_s").is_null());
    // Another test may have it swapping just then, which is told first.
    EXPECT_THAT(zram->at("reason").get<std::string>(),
                ::testing::AnyOf(::testing::HasSubstr("root"), ::testing::HasSubstr("already swaps")));
    EXPECT_TRUE(find(lines, "read-uniform", "inline")->at("per_s").is_number());
}

TEST(BenchChurn, RefusesWhatItDoesNotKnow) {
    for (const std::vector<std::string>& arguments :
         {std::vector<std::string>{"--cases", "sideways"}, {"--near-percent", "5"}, {"--threads", "0"}}) {
        std::vector<std::string> command = {BENCH_CHURN};
        command.insert(command.end(), arguments.begin(), arguments.end());
        const Outcome outcome = run_command(command);
        EXPECT_EQ(outcome.exit_code, 2);
        EXPECT_EQ(outcome.output, "");
        EXPECT_NE(outcome.errors.find("pnode-bench-churn: "), std::string::npos) << outcome.errors;
    }
}

}  // namespace
}  // namespace pnode::test
