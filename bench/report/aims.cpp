#include "bench/report/aims.h"

#include <cmath>
#include <cstdio>
#include <string>

namespace pnode::bench {
namespace {

struct Match {
    const char* field;
    const char* value;
};
using Row = std::vector<Match>;  // empty: none

enum class Is { at_least, at_most };

struct Aim {
    const char* what;
    const char* program;
    Row ours;
    const char* field;
    Row theirs;  // whose field ours is a multiple of; empty: the field is a ratio itself, or is not to be one
    Is is;
    double aim;
    Row floor = {};  // the kernel's part alone, compared as ours is
    double unit = 1;
    int digits = 2;
};

constexpr const char *fault = "pnode-bench-fault", *churn = "pnode-bench-churn", *redis = "pnode-bench-redis",
                     *malloc_ = "pnode-bench-malloc", *fork_ = "pnode-bench-fork",
                     *scale = "pnode-bench-scale";

Row fault_row(const char* name, const char* threads, const char* engine, const char* codec = "lz4") {
    return {{"case", name}, {"threads", threads}, {"engine", engine}, {"codec", codec}};
}

// At one near limit alone: rows at others are of the suite "limits".
Row churn_row(const char* name, const char* threads, const char* engine) {
    return {{"case", name}, {"threads", threads}, {"engine", engine}, {"near_percent", "50"}};
}

Row redis_row(const char* workload, const char* variant) {
    return {{"workload", workload}, {"variant", variant}};
}

std::vector<Aim> fault_aims() {
    const auto zram = [](const char* name, const char* threads) { return fault_row(name, threads, "zram"); };
    const auto ours = [](const char* name, const char* threads = "1") {
        return fault_row(name, threads, "inline");
    };
    const Row inline_floor = fault_row("far-random", "1", "floor"),
              thread_floor = fault_row("far-random", "1", "floor-thread");
    const Row by_handlers = fault_row("far-random", "1", "thread"), far = zram("far-random", "1");
    const Is at_least = Is::at_least, at_most = Is::at_most;
    return {
        {"refault, p50: inline", fault, ours("far-random"), "p50_ns", far, at_most, 0.8, inline_floor},
        {"refault, p50: thread", fault, by_handlers, "p50_ns", far, at_most, 1.1, thread_floor},
        {"refault, p99: inline", fault, ours("far-random"), "p99_ns", far, at_most, 1.0, inline_floor},
        {"refault, p99: thread", fault, by_handlers, "p99_ns", far, at_most, 1.5, thread_floor},
        {"refault, two threads, pages/s: inline",
         fault,
         ours("far-random", "2"),
         "ratio_to_zram",
         {},
         at_least,
         1.15,
         fault_row("far-random", "2", "floor")},
        {"refault, two threads, pages/s: thread",
         fault,
         fault_row("far-random", "2", "thread"),
         "ratio_to_zram",
         {},
         at_least,
         0.6,
         fault_row("far-random", "2", "floor-thread")},
        {"in order, a spare processor, pages/s (0.4 of the time)",
         fault,
         ours("far-sequential"),
         "ratio_to_zram",
         {},
         at_least,
         2.5,
         fault_row("far-sequential", "1", "floor-16")},
        {"in order, both processors read, pages/s (0.6 of the time)",
         fault,
         ours("far-sequential", "2"),
         "ratio_to_zram",
         {},
         at_least,
         1.67,
         fault_row("far-sequential", "2", "floor-16")},
        {"leaving, written to, p50", fault, ours("demote"), "p50_ns", zram("demote", "1"), at_most, 0.75,
         fault_row("demote", "1", "floor")},
        {"leaving, only read, p50", fault, ours("demote-unchanged-again"), "p50_ns",
         zram("demote-unchanged-again", "1"), at_most, 0.1},
    };
}

std::vector<Aim> churn_aims() {
    std::vector<Aim> aims;
    for (const char* threads : {"1", "2"}) {
        const bool one = threads[0] == '1';
        aims.push_back(
            {one ? "uniform reads, one thread, accesses/s" : "uniform reads, two threads, accesses/s",
             churn,
             churn_row("read-uniform", threads, "inline"),
             "ratio_to_zram",
             {},
             Is::at_least,
             2.5,
             churn_row("read-uniform", threads, "floor-lz4")});
        aims.push_back({one ? "... every near page may keep its blob, one thread"
                            : "... every near page may keep its blob, two threads",
                        churn,
                        churn_row("read-uniform", threads, "inline+"),
                        "ratio_to_zram",
                        {},
                        Is::at_least,
                        2.5,
                        churn_row("read-uniform", threads, "floor-lz4")});
        aims.push_back({one ? "half writes, one thread, accesses/s" : "half writes, two threads, accesses/s",
                        churn,
                        churn_row("write-uniform", threads, "inline"),
                        "ratio_to_zram",
                        {},
                        Is::at_least,
                        1.3,
                        churn_row("write-uniform", threads, "floor")});
    }
    aims.push_back({"steady working set: background, % of a CPU",
                    churn,
                    churn_row("steady", "1", "inline"),
                    "background_cpu_percent",
                    {},
                    Is::at_most,
                    1.0});
    return aims;
}

std::vector<Aim> redis_aims() {
    struct Workload {
        const char *name, *rate, *tail, *total, *calm;
        double rate_aim, total_aim;
    };
    static constexpr Workload workloads[] = {
        {"get-uniform", "Redis, GET uniform, requests/s", "... p99", "... equal total memory, requests/s",
         "... nothing cold, to plain", 1.6, 1.5},
        {"get-zipf-0.99", "Redis, GET Zipf, requests/s", "... p99", "... equal total memory, requests/s",
         "... nothing cold, to plain", 1.4, 1.3},
        {"get-set-50-50", "Redis, half SET, requests/s", "... p99", "... equal total memory, requests/s",
         "... nothing cold, to plain", 1.1, 1.1},
    };
    std::vector<Aim> aims;
    for (const Workload& each : workloads) {
        const Row small = redis_row(each.name, "pnode-small"), zram = redis_row(each.name, "zram-small");
        aims.push_back({each.rate, redis, small, "ratio_to_zram", {}, Is::at_least, each.rate_aim});
        aims.push_back({each.tail, redis, small, "p99_ns", zram, Is::at_most, 0.9});
        aims.push_back({each.total,
                        redis,
                        redis_row(each.name, "pnode-total"),
                        "ratio_to_zram",
                        {},
                        Is::at_least,
                        each.total_aim});
        aims.push_back(
            {each.calm, redis, redis_row(each.name, "pnode-near"), "ratio_to_plain", {}, Is::at_least, 0.99});
    }
    return aims;
}

std::vector<Aim> other_aims() {
    std::vector<Aim> aims;
    for (const auto& [what, workload, threads] :
         {std::tuple{"allocating, nothing cold, to jemalloc: mixed, one thread", "mixed", "1"},
          std::tuple{"... mixed, two threads", "mixed", "2"},
          std::tuple{"... passed between threads, one", "passed", "1"},
          std::tuple{"... passed between threads, two", "passed", "2"},
          std::tuple{"... records, one thread", "records", "1"},
          std::tuple{"... records, two threads", "records", "2"}})
        aims.push_back({what,
                        malloc_,
                        {{"workload", workload}, {"threads", threads}, {"allocator", "pnode"}},
                        "ratio_to_jemalloc",
                        {},
                        Is::at_least,
                        0.99});
    const char* const parent = "fork() in the parent";
    aims.push_back({"fork(), nothing far, to plain",
                    fork_,
                    {{"variant", "near"}, {"span", parent}},
                    "ratio_to_plain",
                    {},
                    Is::at_most,
                    1.15});
    aims.push_back({"fork(), 60 % far, to plain",
                    fork_,
                    {{"variant", "far"}, {"span", parent}},
                    "ratio_to_plain",
                    {},
                    Is::at_most,
                    1.15});
    const Row larger = {{"heap", "8 GiB"}}, sparse = {{"heap", "1024 GiB, sparse"}};
    aims.push_back(
        {"a page of 8 GiB, to one of 1 GiB: read", scale, larger, "read_ratio", {}, Is::at_most, 1.15});
    aims.push_back({"... written", scale, larger, "write_ratio", {}, Is::at_most, 1.15});
    aims.push_back({"a page of 1 TiB, sparse: read", scale, sparse, "read_ratio", {}, Is::at_most, 1.15});
    aims.push_back({"... written", scale, sparse, "write_ratio", {}, Is::at_most, 1.15});
    aims.push_back({"opening 1 TiB, ms", scale, sparse, "open_ns", {}, Is::at_most, 10, {}, 1e6});
    return aims;
}

bool is_row(const Json& row, const Row& wanted) {
    for (const Match& match : wanted)
        if (text(row, match.field) != match.value) return false;
    return !wanted.empty();
}

// Of the last run that has it: NaN when none has.
double found(const std::vector<Run>& runs, const Aim& aim, const Row& wanted) {
    double value = std::nan("");
    for (const Run& run : runs) {
        if (run.program() != aim.program) continue;
        for (const Json& row : run.rows)
            if (is_row(row, wanted)) value = number(row, aim.field) / aim.unit;
    }
    return value;
}

std::string cell(double value, int digits) {
    if (std::isnan(value)) return "-";
    char buffer[40];
    std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
    return buffer;
}

bool meets(const Aim& aim, double value) {
    return aim.is == Is::at_least ? value >= aim.aim : value <= aim.aim;
}

void add_row(const std::vector<Run>& runs, const Aim& aim, Table* table) {
    const double unit = aim.theirs.empty() ? 1 : found(runs, aim, aim.theirs);
    const double value = found(runs, aim, aim.ours) / unit;
    if (std::isnan(value)) return;
    table->rows.push_back({aim.what, (aim.is == Is::at_least ? ">= " : "<= ") + cell(aim.aim, aim.digits),
                           cell(value, aim.digits), meets(aim, value) ? "yes" : "no",
                           cell(found(runs, aim, aim.floor) / unit, aim.digits)});
}

}  // namespace

Table aims_of(const std::vector<Run>& runs) {
    Table table{"Aims", {"to zram, where nothing else is said", "aim", "measured", "met", "floor"}, {}};
    for (const std::vector<Aim>& aims : {fault_aims(), churn_aims(), redis_aims(), other_aims()})
        for (const Aim& aim : aims) add_row(runs, aim, &table);
    return table;
}

}  // namespace pnode::bench
