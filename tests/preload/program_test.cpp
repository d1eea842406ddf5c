// Real programs under the preload library: what they say and how they end is what they say and how they end
// without.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "child.h"

namespace {

using namespace preload_test;

const Environment plain = {{"LC_ALL", "C"}};

Environment preloaded(Environment more = {}) {
    more.insert(more.begin(), {{"LC_ALL", "C"}, {"LD_PRELOAD", PRELOAD_LIBRARY}});
    return more;
}

Environment tiered(Environment more = {}) {
    more.insert(more.begin(), {{"PNODE_NEAR", "12M"}, {"PNODE_ACTIVATION", "1M"}});
    return preloaded(std::move(more));
}

std::vector<std::string> shell(const std::string& script) {
    return {"/bin/sh", "-c", script};
}

// ---- what the library shows ----

std::set<std::string> exported_symbols() {
    const Directory directory;
    const Said said = run({NM, "-D", "--defined-only", PRELOAD_LIBRARY}, plain, directory);
    std::set<std::string> names;
    std::istringstream lines(said.out);
    for (std::string address, type, name; lines >> address >> type >> name;) names.insert(name);
    return names;
}

std::set<std::string> listed_symbols() {
    std::string text = read_file(SYMBOLS_MAP);
    text = std::regex_replace(text, std::regex(R"(/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)"), "");
    const std::size_t first = text.find("global:") + 7;
    text = text.substr(first, text.find("local:") - first);
    std::set<std::string> names;
    const std::regex name("[A-Za-z_][A-Za-z0-9_]*");
    for (std::sregex_iterator at(text.begin(), text.end(), name), end; at != end; ++at)
        names.insert(at->str());
    return names;
}

TEST(Library, ExportsWhatIsListedAndNothingElse) {
    const std::set<std::string> listed = listed_symbols();
    EXPECT_EQ(exported_symbols(), listed);
    EXPECT_TRUE(listed.contains("malloc"));
    EXPECT_TRUE(listed.contains("_Znwm"));
    EXPECT_TRUE(listed.contains("mallctl"));
}

TEST(Library, BringsNoCxxLibraryIntoACProgram) {
    const Directory directory;
    const Said said = run({"cat", "/proc/self/maps"}, preloaded(), directory);
    EXPECT_NE(said.out.find("libpnode-preload.so"), std::string::npos);
    EXPECT_EQ(said.out.find("libstdc++"), std::string::npos);
}

// ---- a process that stays small ----

TEST(SmallProcess, HasNoThreadNoDescriptorAndNoRegion) {
    const Directory directory;
    const Said said = run(
        shell("exec perl -e 'print join(q( ), map { readlink($_) // q() } glob(q(/proc/self/fd/*))), qq(\\n);"
              "print scalar(() = glob(q(/proc/self/task/*))), qq( threads\\n);"
              "open F, q(</proc/self/maps); print <F>;'"),
        preloaded(), directory);
    EXPECT_EQ(said.status, 0) << said.err;
    EXPECT_EQ(said.err, "");
    EXPECT_NE(said.out.find("\n1 threads\n"), std::string::npos) << said.out;
    EXPECT_NE(said.out.find("libpnode-preload.so"), std::string::npos);
    EXPECT_EQ(said.out.find("userfaultfd"), std::string::npos) << said.out;
    EXPECT_EQ(said.out.find("memfd"), std::string::npos) << said.out;
}

TEST(SmallProcess, ExitCodesAreItsOwn) {
    const Directory directory;
    for (const int code : {0, 1, 77, 255}) {
        const Said said = run(shell("exit " + std::to_string(code)), tiered(), directory);
        EXPECT_EQ(WEXITSTATUS(said.status), code);
    }
    const Said killed = run(shell("kill -TERM $$"), tiered(), directory);
    EXPECT_TRUE(WIFSIGNALED(killed.status));
    EXPECT_EQ(WTERMSIG(killed.status), SIGTERM);
}

// ---- what cannot be managed ----

constexpr const char* count_words = "my %h; $h{$_} = \"x$_\" for 1..100000; print scalar(keys %h), qq(\\n)";

TEST(Unmanaged, RunsAndSaysSoInOneLine) {
    const Directory directory;
    const Said said = run({"perl", "-e", count_words}, tiered({{"PNODE_HIDE", "userfaultfd"}}), directory);
    EXPECT_EQ(said.status, 0);
    EXPECT_EQ(said.out, "100000\n");
    EXPECT_EQ(said.err.rfind("pnode: ", 0), 0U) << said.err;
    EXPECT_NE(said.err.find("runs unmanaged"), std::string::npos) << said.err;
    EXPECT_EQ(std::count(said.err.begin(), said.err.end(), '\n'), 1) << said.err;
    EXPECT_NE(said.err.find("userfaultfd"), std::string::npos) << said.err;
}

TEST(Unmanaged, ASmallProcessSaysNothing) {
    const Directory directory;
    const Said said = run({"echo", "hello"}, preloaded({{"PNODE_HIDE", "userfaultfd"}}), directory);
    EXPECT_EQ(said, (Said{"hello\n", "", 0}));
}

TEST(Unmanaged, ABadValueIsToldAndTheProgramRuns) {
    const Directory directory;
    const Said said = run({"echo", "hello"}, preloaded({{"PNODE_NEAR", "much"}}), directory);
    EXPECT_EQ(said.status, 0);
    EXPECT_EQ(said.out, "hello\n");
    EXPECT_NE(said.err.find("PNODE_NEAR"), std::string::npos) << said.err;
}

// ---- statistics ----

TEST(Statistics, AreWrittenAtExit) {
    const Directory directory;
    const std::filesystem::path file = directory / "stats.json";
    const Said said = run({"perl", "-e", count_words}, tiered({{"PNODE_STATS", file}}), directory);
    EXPECT_EQ(said.status, 0) << said.err;
    const std::string json = read_file(file);
    EXPECT_GT(json_number(json, "heap_bytes"), 12 << 20) << json;
    EXPECT_GT(json_number(json, "demotions"), 0) << json;
    EXPECT_EQ(json.back(), '\n');
}

TEST(Statistics, GoToStandardErrorForADash) {
    const Directory directory;
    const Said said = run({"echo", "hello"}, preloaded({{"PNODE_STATS", "-"}}), directory);
    EXPECT_EQ(said.out, "hello\n");
    EXPECT_GE(json_number(said.err, "heap_bytes"), 0) << said.err;
}

// What a child counts goes on from what its parent had counted.
TEST(Statistics, AForkedChildWritesItsOwnWhereAskedTo) {
    const Directory directory;
    const std::string script = std::string(count_words) +
                               "; my $child = fork(); if ($child == 0) { exit 0 } wait; my $of_child = "
                               "$ENV{PNODE_STATS} =~ s/%p/$child/r; "
                               "print -e $of_child ? \" told by the child\" : \" not told\"";
    const Said said =
        run({"perl", "-e", script}, tiered({{"PNODE_STATS", directory / "stats-%p.json"}}), directory);
    EXPECT_EQ(said.status, 0) << said.err;
    EXPECT_TRUE(said.out.ends_with(" told by the child")) << said.out;
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
        if (entry.path().extension() != ".json") continue;
        ++files;
        EXPECT_GT(json_number(read_file(entry.path()), "demotions"), 0) << entry.path();
    }
    EXPECT_EQ(files, 2);
}

TEST(Statistics, AForkedChildLeavesThemAlone) {
    const Directory directory;
    const std::filesystem::path file = directory / "stats.json";
    const char* script = "if (fork() == 0) { exit 0 } wait; print -e $ENV{PNODE_STATS} ? 1 : 0";
    const Said said = run({"perl", "-e", script}, tiered({{"PNODE_STATS", file}}), directory);
    EXPECT_EQ(said.out, "0");
    EXPECT_TRUE(std::filesystem::exists(file));
}

TEST(Statistics, AFileThatCannotBeWrittenIsTold) {
    const Directory directory;
    // Not a program that closes its standard error before the end, as coreutils do.
    const Said said = run({"perl", "-e", "print qq(hello\\n)"},
                          preloaded({{"PNODE_STATS", directory / "no/such/file"}}), directory);
    EXPECT_EQ(said.status, 0);
    EXPECT_EQ(said.out, "hello\n");
    EXPECT_NE(said.err.find("PNODE_STATS"), std::string::npos) << said.err;
}

// ---- the same output with and without ----

void write_lines(const std::filesystem::path& path, int count) {
    std::ofstream lines(path);
    unsigned value = 12345;
    for (int i = 0; i < count; ++i) {
        value = value * 1664525U + 1013904223U;
        lines << value % 1000003U << " some words that many lines have " << i % 97 << '\n';
    }
}

// `prepare` fills the directory of each run.
void expect_same(const std::vector<std::string>& arguments, void (*prepare)(const Directory&) = nullptr) {
    const Directory without;
    const Directory with;
    if (prepare != nullptr) {
        prepare(without);
        prepare(with);
    }
    const Said expected = run(arguments, plain, without);
    EXPECT_EQ(expected.status, 0) << expected.err;
    EXPECT_FALSE(expected.out.empty());
    EXPECT_EQ(run(arguments, tiered(), with), expected);
}

void with_lines(const Directory& directory) {
    write_lines(directory / "lines", 150000);
}

TEST(Program, Python) {
    expect_same({"python3", "-c", R"(
import hashlib, json, os, subprocess, sys, threading
table = {str(i): {"name": "package-%d" % i, "words": ["some", "words", str(i % 97)]} for i in range(40000)}
digest = lambda: hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
print(digest())
child = os.fork()
if child == 0:
    os._exit(0 if len(table) == 40000 and table["39999"]["name"] == "package-39999" else 1)
print(os.waitpid(child, 0)[1])
print(subprocess.run(["cat"], input=b"x" * 1000000, capture_output=True, close_fds=True).stdout == b"x" * 1000000)
sums = []
threads = [threading.Thread(target=lambda: sums.append(sum(range(100000)))) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print(sums, digest())
)"});
}

TEST(Program, Perl) {
    expect_same({"perl", "-e", R"(
my %h; $h{$_ % 70001} .= "value $_ " for 1..300000;
my $sum = 0; $sum = ($sum * 31 + length($h{$_})) % 1000003 for sort { $a <=> $b } keys %h;
print "$sum\n", `echo from a child`, scalar(keys %h), "\n";
)"});
}

TEST(Program, Sort) {
    expect_same(shell("sort -n lines | md5sum; sort -u -S 40M --parallel=2 lines | md5sum"), with_lines);
}

TEST(Program, Compressors) {
    expect_same(
        shell(
            "xz -T2 -0 -k lines && xz -dc lines.xz | md5sum && gzip -k lines && gzip -dc lines.gz | md5sum"),
        with_lines);
}

TEST(Program, Git) {
    expect_same(
        shell(
            "export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='1700000000 +0000' "
            "GIT_COMMITTER_DATE='1700000000 +0000';"
            "git init -q repository && cd repository && git config user.name n && git config user.email "
            "e@example.org &&"
            "split -l 5000 ../lines part && git add . && git commit -qm one && sed -i s/words/deeds/ part* &&"
            "git commit -qam two && git gc -q && git fsck --strict 2>&1 && git rev-parse HEAD &&"
            "git diff --stat HEAD~1 | tail -1"),
        with_lines);
}

TEST(Program, Compiler) {
    expect_same(
        shell("seq 800 | sed 's/.*/int f&(int x) { return x * & + (x >> (& % 31)); }/' > code.c && "
              "gcc -O2 -c code.c && md5sum < code.o"));
}

TEST(Program, Sqlite) {
    expect_same({"sqlite3", ":memory:", R"(
create table t(id integer primary key, name text, value integer);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 150000)
  insert into t select i, 'row number ' || i, (i * 7919) % 100003 from n;
create index by_value on t(value);
select count(*), sum(value), max(name) from t;
select group_concat(id) from (select id from t order by value, id limit 20);
update t set name = name || ' changed' where value < 50000;
select sum(length(name)) from t;
)"});
}

// ---- programs that map their memory themselves ----

TEST(Mapping, PythonMapsGrowsAndShares) {
    expect_same({"python3", "-c", R"(
import hashlib, mmap, os
area = mmap.mmap(-1, 24 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, 24 << 20, 4096): area[at:at + 8] = at.to_bytes(8, 'little')
digest = lambda: hashlib.sha256(area).hexdigest()
print(digest())
area.madvise(mmap.MADV_DONTNEED, 1 << 20, 1 << 20)
print(digest())
area.resize(32 << 20)
print(digest())
child = os.fork()
if child == 0:
    print(digest(), flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1])
area.close()
with open('file', 'wb+') as file:
    file.truncate(4 << 20)
    shared = mmap.mmap(file.fileno(), 4 << 20)
    shared[12345:12350] = b'hello'
    shared.flush()
    print(hashlib.sha256(file.read()).hexdigest())
)"});
}

TEST(Mapping, SqliteMapsItsFile) {
    expect_same({"sqlite3", "file.db", R"(
pragma mmap_size = 268435456;
create table t(id integer primary key, name text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000)
  insert into t select i, 'row number ' || i from n;
select count(*), sum(length(name)), max(name) from t;
delete from t where id % 3 = 0;
vacuum;
select count(*), sum(id) from t;
pragma integrity_check;
)"});
}

// Reserves its heap, commits pieces of it by MAP_FIXED, and gives them back so. It asks for addresses unless
// its pointers are not compressed.
void with_java(const Directory& directory) {
    std::ofstream(directory / "Job.java") << R"(
import java.util.*;
public class Job {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> map = new HashMap<>();
        for (int i = 0; i < 60000; i++) map.put("key" + i, "value number " + (i * 7919 % 100003));
        long sum = 0;
        for (int round = 0; round < 3; round++)
            for (Map.Entry<String, String> entry : map.entrySet()) sum = sum * 31 + entry.getValue().hashCode();
        List<byte[]> blocks = new ArrayList<>();
        for (int i = 0; i < 32; i++) { byte[] block = new byte[1 << 19]; Arrays.fill(block, (byte) i); blocks.add(block); }
        System.gc();
        for (byte[] block : blocks) sum = sum * 31 + block[12345];
        Thread[] threads = new Thread[4];
        long[] sums = new long[4];
        for (int t = 0; t < 4; t++) {
            final int own = t;
            threads[t] = new Thread(() -> { for (String value : map.values()) sums[own] += value.length(); });
            threads[t].start();
        }
        for (Thread thread : threads) thread.join();
        System.out.println(map.size() + " " + sum + " " + Arrays.toString(sums));
    }
})";
}

TEST(Mapping, AJavaMachineRunsItsJob) {
    const Directory directory;
    if (run(shell("command -v javac java"), plain, directory).status != 0)
        GTEST_SKIP() << "no Java on this machine";
    with_java(directory);
    const auto job = [](const std::string& options) {
        return shell("test -e Job.class || javac Job.java; exec java -XX:+UseSerialGC -Xmx64m " + options +
                     " -cp . Job");
    };
    const Said expected = run(job(""), plain, directory);
    ASSERT_EQ(expected.status, 0) << expected.err;
    const std::filesystem::path stats = directory / "stats.json";
    const auto expect_same_and_far = [&](const std::string& options, const char* capture) {
        const Environment environment = {
            {"PNODE_NEAR", "16M"}, {"PNODE_STATS", stats}, {"PNODE_CAPTURE", capture}};
        EXPECT_EQ(run(job(options), tiered(environment), directory), expected);
        EXPECT_GT(json_number(read_file(stats), "demotions"), 1000) << options << read_file(stats);
    };
    expect_same_and_far("-XX:-UseCompressedOops -XX:+AlwaysPreTouch -Xms48m", "malloc,mmap");
    expect_same_and_far("-XX:+UseCompressedOops", "malloc,mmap,hints");
}

// ---- a database ----

class Redis {
  public:
    explicit Redis(const Environment& environment, const Directory& directory) : directory_(directory) {
        pid_ = start({"redis-server", "--port", "0", "--unixsocket", socket(), "--dir", directory.path(),
                      "--save", "", "--enable-debug-command", "yes", "--databases", "1"},
                     environment, directory);
    }
    ~Redis() {
        if (pid_ <= 0) return;
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    Redis(const Redis&) = delete;
    Redis& operator=(const Redis&) = delete;

    bool answers() {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
        while (ask({"ping"}) != "PONG\n") {
            if (std::chrono::steady_clock::now() > deadline || waitpid(pid_, nullptr, WNOHANG) == pid_)
                return false;
            std::this_thread::yield();
        }
        return true;
    }
    std::string ask(std::vector<std::string> command) {
        const Directory output;
        command.insert(command.begin(), {"redis-cli", "-s", socket()});
        return run(command, plain, output).out;
    }
    std::string info(const std::string& name) {
        const std::string text = ask({"info"});
        const std::size_t at = text.find("\n" + name + ":");
        return at == std::string::npos
                   ? ""
                   : text.substr(at + name.size() + 2, text.find('\r', at + 1) - at - name.size() - 2);
    }
    // Until the child that saves has ended.
    bool save_in_background() {
        if (ask({"bgsave"}) != "Background saving started\n") return false;
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
        while (info("rdb_bgsave_in_progress") != "0") {
            if (std::chrono::steady_clock::now() > deadline) return false;
        }
        return info("rdb_last_bgsave_status") == "ok";
    }
    int shut_down() {
        ask({"shutdown", "nosave"});
        int status = -1;
        waitpid(pid_, &status, 0);
        pid_ = -1;
        return status;
    }

  private:
    std::string socket() const { return directory_ / "socket"; }

    const Directory& directory_;
    pid_t pid_;
};

std::string digest_of_plain_redis() {
    const Directory directory;
    Redis redis(plain, directory);
    if (!redis.answers()) return "the plain redis-server did not start";
    redis.ask({"debug", "populate", "100000", "key", "200"});
    return redis.ask({"debug", "digest"});
}

TEST(Program, RedisServesSavesAndLoadsWhatItHolds) {
    const std::string expected = digest_of_plain_redis();
    ASSERT_EQ(expected.size(), 41U) << expected;
    const Directory directory;
    const std::filesystem::path stats = directory / "stats.json";
    {
        Redis redis(tiered({{"PNODE_STATS", stats}}), directory);
        ASSERT_TRUE(redis.answers()) << read_file(directory / "err") << read_file(directory / "out");
        EXPECT_EQ(redis.ask({"debug", "populate", "100000", "key", "200"}), "OK\n");
        EXPECT_EQ(redis.ask({"debug", "digest"}), expected);
        EXPECT_TRUE(redis.save_in_background());
        EXPECT_EQ(redis.ask({"debug", "digest"}), expected);
        EXPECT_EQ(redis.info("mem_allocator").rfind("jemalloc", 0), 0U);
        EXPECT_NE(redis.info("allocator_allocated"), "0");  // its mallctl is ours
        EXPECT_EQ(redis.shut_down(), 0) << read_file(directory / "err") << read_file(directory / "out");
    }
    EXPECT_GT(json_number(read_file(stats), "demotions"), 0) << read_file(stats);
    Redis again(tiered(), directory);
    ASSERT_TRUE(again.answers()) << read_file(directory / "out");
    EXPECT_EQ(again.ask({"debug", "digest"}), expected);
    EXPECT_EQ(again.shut_down(), 0);
}

}  // namespace
