// pnode-bench-codec on little data: what it finds of data whose answer is known, and what it refuses.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <random>

#include "tests/bench/json_lines.h"

namespace pnode::test {
namespace {

constexpr std::size_t page_bytes = 4096, pages = 256;

class DataFile {
  public:
    explicit DataFile(const std::string& text) {
        char name[] = "/tmp/pnode-bench-codec-XXXXXX";
        ::close(mkstemp(name));
        path_ = name;
        std::ofstream(path_, std::ios::binary) << text;
    }
    ~DataFile() { std::remove(path_.c_str()); }
    DataFile(const DataFile&) = delete;
    DataFile& operator=(const DataFile&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

std::string records() {
    std::mt19937_64 random(7);
    std::string text;
    while (text.size() < pages * page_bytes)
        text += "{\"id\":" + std::to_string(random() % 100000) + ",\"name\":\"user" +
                std::to_string(random() % 1000) + "\",\"active\":true}\n";
    return text;
}

std::string noise() {
    std::mt19937_64 random(7);
    std::string text(pages * page_bytes, '\0');
    for (char& letter : text) letter = static_cast<char>(random());
    return text;
}

std::vector<std::string> bench(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {PNODE_COMMAND, "bench", "codec"});
    return arguments;
}

Lines rows_of(const Lines& lines) {
    Lines rows;
    for (const nlohmann::json& line : lines)
        if (line.value("kind", "") == "row") rows.push_back(line);
    return rows;
}

TEST(BenchCodec, StoresAFileEveryWay) {
    const DataFile file(records());
    const Lines lines = json_lines(
        bench({file.path(), "--json", "--quick", "--codecs", "lz4,zstd:1", "--block-kib", "4,16"}));
    expect_header(lines[0], "pnode-bench-codec");
    const Lines rows = rows_of(lines);
    ASSERT_EQ(rows.size(), 2u * 2 * 2 + 1) << "codecs, blocks, with a dictionary and without; and the kernel";
    for (const nlohmann::json& row : rows) {
        SCOPED_TRACE(row);
        if (row["codec"] == "zram:lz4") {
            EXPECT_TRUE(row["ratio"].is_number() || row["reason"].is_string());
            continue;
        }
        EXPECT_EQ(row["pages"], pages);
        EXPECT_EQ(row["stored_share"], 1.0);
        EXPECT_GT(row["ratio"], 1.5);
        EXPECT_GE(row["far_bytes"], row["slot_bytes"]);
        EXPECT_GE(row["slot_bytes"], row["blob_bytes"]);
        EXPECT_GT(row["compress_p50_ns"], 0);
        EXPECT_GE(row["compress_p99_ns"], row["compress_p50_ns"]);
        EXPECT_GE(row["decode_p99_ns"], row["decode_p50_ns"]);
        EXPECT_GT(row["fault_p50_ns"], 0) << "the inline engine needs no privilege";
        const bool is_a_heaps = row["block_bytes"] == page_bytes && row["dictionary"] == false;
        EXPECT_EQ(row["fault_from"], is_a_heaps ? "heap" : "computed");
    }
    EXPECT_LT(rows[1]["blob_bytes"], rows[0]["blob_bytes"]) << "more to refer to in a larger block";
    EXPECT_LT(rows[2]["blob_bytes"], rows[0]["blob_bytes"]) << "more to refer to with a dictionary";
    EXPECT_EQ(lines.back()["kind"], "answer");
    EXPECT_NE(lines.back()["text"].get<std::string>().find("--codec "), std::string::npos) << lines.back();
}

TEST(BenchCodec, LeavesNoiseWhereItIs) {
    const DataFile file(noise());
    const Lines lines = json_lines(bench({file.path(), "--json", "--quick", "--codecs", "lz4", "--no-zram"}));
    for (const nlohmann::json& row : rows_of(lines)) {
        if (row["codec"] != "lz4" || row["dictionary"] == true) continue;
        EXPECT_EQ(row["stored_share"], 0.0) << row;
        EXPECT_EQ(row["page_bytes"], page_bytes) << row;
        EXPECT_TRUE(row["fault_p50_ns"].is_null()) << row;
    }
    EXPECT_NE(lines.back()["text"].get<std::string>().find("none"), std::string::npos) << lines.back();
}

TEST(BenchCodec, PagesOfZerosTakeNothing) {
    const Lines lines = json_lines(
        bench({"--corpora", "zeros", "--json", "--quick", "--codecs", "same,lz4", "--block-kib", "4,64"}));
    const Lines rows = rows_of(lines);
    ASSERT_GE(rows.size(), 5u);
    EXPECT_EQ(rows[0]["page_bytes"], 0.0) << rows[0];
    EXPECT_EQ(rows[3]["page_bytes"], 0.0) << rows[3];
}

TEST(BenchCodec, ReadsTheHeapOfARunningProcess) {
    const std::string text = records();
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t process = fork();
    if (process == 0) {
        void* const memory =
            mmap(nullptr, text.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        std::copy(text.begin(), text.end(), static_cast<char*>(memory));
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);  // where only ancestors may look into a process
        if (write(ready[1], "", 1) != 1) _exit(1);
        for (;;) pause();
    }
    char filled = 1;
    ASSERT_EQ(read(ready[0], &filled, 1), 1);
    for (const int end : ready) close(end);
    const Lines lines = json_lines(
        bench({std::to_string(process), "--json", "--quick", "--codecs", "lz4", "--no-dictionaries"}));
    kill(process, SIGKILL);
    waitpid(process, nullptr, 0);
    const Lines rows = rows_of(lines);
    ASSERT_FALSE(rows.empty());
    EXPECT_GE(rows[0]["pages"], pages);
    EXPECT_GT(rows[0]["ratio"], 1.0);
}

TEST(BenchCodec, SaysWhichRightIsMissing) {
    std::vector<std::string> command = bench({"1", "--json", "--quick"});
    if (geteuid() == 0)
        command.insert(command.begin(), {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"});
    const Outcome outcome = run_command(command);
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_NE(outcome.errors.find("process 1: "), std::string::npos) << outcome.errors;
    EXPECT_NE(outcome.errors.find("root"), std::string::npos) << outcome.errors;
}

TEST(BenchCodec, WritesValuesSeparatedByCommas) {
    const DataFile file(records());
    const Outcome outcome = run_command(
        bench({file.path(), "--csv", "--quick", "--codecs", "lz4", "--block-kib", "4", "--no-zram"}));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
    std::istringstream text(outcome.output);
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    ASSERT_EQ(lines.size(), 1u + 2 + 1);
    EXPECT_TRUE(lines[0].starts_with("corpus,codec,block_bytes,dictionary,")) << lines[0];
    for (const std::string& line : lines)
        EXPECT_EQ(std::count(line.begin(), line.end(), ','),
                  std::count(lines[0].begin(), lines[0].end(), ','))
            << line;
}

TEST(BenchCodec, RefusesWhatIsNotThere) {
    EXPECT_EQ(run_command(bench({"/nonexistent/file"})).exit_code, 1);
    EXPECT_EQ(run_command(bench({"4194304"})).exit_code, 1) << "beyond the largest number of a process";
    EXPECT_EQ(run_command(bench({"--codecs", "shrink"})).exit_code, 2);
    EXPECT_EQ(run_command(bench({"--corpora", "novel"})).exit_code, 2);
}

}  // namespace
}  // namespace pnode::test
