// `pnode bench`: what it refuses, and the tables it writes between a document's marks.
#include <fstream>

#include "tests/bench/json_lines.h"

namespace pnode::test {
namespace {

class Folder {
  public:
    Folder() {
        char name[] = "/tmp/pnode-bench-test-XXXXXX";
        path_ = mkdtemp(name);
    }
    ~Folder() { run_command({"rm", "-r", path_}); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string file(const std::string& name) const { return path_ + "/" + name; }
    void write(const std::string& name, const std::string& text) const { std::ofstream(file(name)) << text; }
    std::string read(const std::string& name) const {
        std::stringstream text;
        text << std::ifstream(file(name)).rdbuf();
        return text.str();
    }

  private:
    std::string path_;
};

// "lines" rendered into "doc.md" and "out".
Outcome render(const Folder& folder) {
    return run_command({PNODE_COMMAND, "bench", "--from", folder.file("lines"), "--out", folder.file("out"),
                        "--document", folder.file("doc.md")});
}

const std::string packing_lines =
    R"({"kind":"header","program":"pnode-bench-packing","suite":"packing","machine":{"cpu":"A & B","cpus":2,"memory_bytes":1073741824,"virtual":false},"kernel":"Linux","options":{}})"
    "\n"
    R"({"kind":"row","when":"loaded","blob_megabytes":5.04,"slots_more_percent":1.256,"physical_more_percent":null})"
    "\n";

TEST(BenchReport, WritesTablesBetweenTheMarksAndNothingElse) {
    const Folder folder;
    folder.write("lines", packing_lines);
    folder.write("doc.md",
                 "before\n<!-- pnode bench packing -->\nold\n<!-- end -->\nbetween\n"
                 "<!-- pnode bench churn -->\nstays\n<!-- end -->\nafter\n");
    const Outcome outcome = render(folder);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
    EXPECT_EQ(
        folder.read("doc.md"),
        "before\n<!-- pnode bench packing -->\n\nA & B, 2 CPUs, 1.0 GiB; Linux; `pnode-bench-packing` {}.\n\n"
        "| after | MB of blobs | slots: % more | physical: % more |\n|---|---|---|---|\n"
        "| loaded | 5.0 | 1.26 | - |\n\n<!-- end -->\nbetween\n"
        "<!-- pnode bench churn -->\nstays\n<!-- end -->\nafter\n");
    EXPECT_EQ(folder.read("out.jsonl"), packing_lines);
    EXPECT_NE(folder.read("out.html").find("A &amp; B"), std::string::npos);
}

// Lines that a benchmark printed by itself (--json) name its program alone; one at several limits is a suite
// of its own.
TEST(BenchReport, KnowsASuiteByItsProgram) {
    const Folder folder;
    const auto document_of = [&](const std::string& lines) {
        folder.write("lines", lines);
        folder.write("doc.md",
                     "<!-- pnode bench churn -->\n<!-- end -->\n<!-- pnode bench limits -->\n<!-- end -->\n");
        const Outcome outcome = render(folder);
        EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
        return folder.read("doc.md");
    };
    const auto lines_of = [](const std::string& limits) {
        return R"({"kind":"header","program":"pnode-bench-churn","options":{"near_percents":[)" + limits +
               "]}}\n" +
               R"({"kind":"row","case":"steady","near_percent":50,"threads":1,"engine":"zram"})"
               "\n";
    };
    const std::string limits_mark = "<!-- pnode bench limits -->\n";
    const std::string once = document_of(lines_of("50"));
    EXPECT_LT(once.find("| steady |"), once.find(limits_mark)) << once;
    const std::string several = document_of(lines_of("20,40"));
    EXPECT_GT(several.find("| steady |"), several.find(limits_mark)) << several;
    EXPECT_NE(several.find("| steady |"), std::string::npos) << several;
}

// The kernel's own number stands beside ours: an aim that the floor misses too is bounded by the kernel.
TEST(BenchReport, SaysWhichAimsAreMet) {
    const auto row = [](const char* engine, int p50_ns, const char* ratio) {
        return std::string(R"({"kind":"row","case":"far-random","threads":1,"codec":"lz4","engine":")") +
               engine + R"(","p50_ns":)" + std::to_string(p50_ns) + R"(,"p99_ns":null,"ratio_to_zram":)" +
               ratio + "}\n";
    };
    const Folder folder;
    folder.write("lines", "{\"kind\":\"header\",\"program\":\"pnode-bench-fault\"}\n" +
                              row("inline", 5000, "1.0") + row("floor", 9000, "1.0") +
                              row("thread", 20000, "0.5") + row("zram", 10000, "1.0"));
    folder.write(
        "doc.md",
        "<!-- pnode bench aims -->\nold\n<!-- end -->\n<!-- pnode bench redis -->\nstays\n<!-- end -->\n");
    const Outcome outcome = render(folder);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
    EXPECT_EQ(
        folder.read("doc.md"),
        "<!-- pnode bench aims -->\n\n"
        "| to zram, where nothing else is said | aim | measured | met | floor |\n|---|---|---|---|---|\n"
        "| refault, p50: inline | <= 0.80 | 0.50 | yes | 0.90 |\n"
        "| refault, p50: thread | <= 1.10 | 2.00 | no | - |\n"
        "\n<!-- end -->\n<!-- pnode bench redis -->\nstays\n<!-- end -->\n");
    EXPECT_NE(folder.read("out.html").find("<td>&lt;= 0.80</td>"), std::string::npos);
}

TEST(BenchReport, RunsASuite) {
    const Folder folder;
    const Outcome outcome =
        run_command({PNODE_COMMAND, "bench", "--suites", "packing", "--out", folder.file("out")});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
    EXPECT_NE(outcome.output.find("| replaced |"), std::string::npos) << outcome.output;
    EXPECT_NE(folder.read("out.jsonl").find("\"suite\":\"packing\""), std::string::npos);
}

TEST(BenchReport, RunsWhatComparesWithoutTheKernel) {
    const Folder folder;
    const Outcome outcome = run_command(
        {PNODE_COMMAND, "bench", "--quick", "--suites", "malloc,fork,scale", "--out", folder.file("out")});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
    for (const char* row : {"| passed | 2 | pnode |", "| far | until the child runs |", "| 64 MiB | 16384 |"})
        EXPECT_NE(outcome.output.find(row), std::string::npos) << row << outcome.output;
}

TEST(BenchReport, RefusesWhatItCannotUse) {
    const Folder folder;
    EXPECT_EQ(run_command({PNODE_COMMAND, "bench", "--suites", "juggling"}).exit_code, 2);
    EXPECT_EQ(run_command({PNODE_COMMAND, "bench", "--from", folder.file("absent")}).exit_code, 1);
    folder.write("lines", packing_lines);
    folder.write("doc.md", "<!-- pnode bench packing -->\nno end");
    const Outcome outcome = render(folder);
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_NE(outcome.errors.find("mark"), std::string::npos) << outcome.errors;
    EXPECT_EQ(folder.read("doc.md"), "<!-- pnode bench packing -->\nno end");
}

}  // namespace
}  // namespace pnode::test
