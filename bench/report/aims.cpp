#include "bench/report/aims.h"

#include <cmath>
#include <string>
#include <utility>

namespace pnode::bench {
namespace {

struct Match {
    const char* field;
    const char* value;
};
using Row = std::vector<Match>;  // empty: none

enum class Is { at_least, at_most };
using enum Is;

struct Aim {
    std::string what;
    const char* program;
    const char* field;
    Row ours;
    Is is;
    double aim;
    Row floor = {};   // the kernel's part alone, compared as ours is
    Row theirs = {};  // whose field ours is taken as a multiple of; empty: it is one already, or is not to be
    double unit = 1;
};

Row fault_row(const char* name, const char* threads, const char* engine) {
    return {{"case", name}, {"threads", threads}, {"engine", engine}, {"codec", "lz4"}};
}

// At one near limit alone: rows at others are of the suite "limits".
Row churn_row(const char* name, const char* threads, const char* engine) {
    return {{"case", name}, {"threads", threads}, {"engine", engine}, {"near_percent", "50"}};
}

std::vector<Aim> fault_aims() {
    const auto latency = [](const char* what, const char* field, const char* name, const char* engine,
                            double aim, Row floor) {
        return Aim{what,
                   "pnode-bench-fault",
                   field,
                   fault_row(name, "1", engine),
                   at_most,
                   aim,
                   std::move(floor),
                   fault_row(name, "1", "zram")};
    };
    const auto rate = [](const char* what, const char* name, const char* threads, const char* engine,
                         double aim, const char* floor) {
        return Aim{what,
                   "pnode-bench-fault",
                   "ratio_to_zram",
                   fault_row(name, threads, engine),
                   at_least,
                   aim,
                   fault_row(name, threads, floor)};
    };
    const Row floor = fault_row("far-random", "1", "floor");
    const Row handlers_floor = fault_row("far-random", "1", "floor-thread");
    return {
        latency("refault, p50: inline", "p50_ns", "far-random", "inline", 0.8, floor),
        latency("refault, p50: thread", "p50_ns", "far-random", "thread", 1.1, handlers_floor),
        latency("refault, p99: inline", "p99_ns", "far-random", "inline", 1.0, floor),
        latency("refault, p99: thread", "p99_ns", "far-random", "thread", 1.5, handlers_floor),
        rate("refault, two threads, pages/s: inline", "far-random", "2", "inline", 1.15, "floor"),
        rate("refault, two threads, pages/s: thread", "far-random", "2", "thread", 0.6, "floor-thread"),
        rate("in order, a spare processor, pages/s (0.4 of the time)", "far-sequential", "1", "inline", 2.5,
             "floor-16"),
        rate("in order, both processors read, pages/s (0.6 of the time)", "far-sequential", "2", "inline",
             1.67, "floor-16"),
        latency("leaving, written to, p50", "p50_ns", "demote", "inline", 0.75,
                fault_row("demote", "1", "floor")),
        latency("leaving, only read, p50", "p50_ns", "demote-unchanged-again", "inline", 0.1, {}),
    };
}

// "1" and "2", and what a row calls them.
constexpr std::pair<const char*, const char*> thread_counts[] = {{"1", ", one thread"},
                                                                 {"2", ", two threads"}};

std::vector<Aim> churn_aims() {
    const char* const program = "pnode-bench-churn";
    std::vector<Aim> aims;
    for (const auto& [threads, said] : thread_counts) {
        const auto rate = [&, threads = threads, said = said](const std::string& what, const char* name,
                                                              const char* engine, double aim,
                                                              const char* floor) {
            aims.push_back({what + said, program, "ratio_to_zram", churn_row(name, threads, engine), at_least,
                            aim, churn_row(name, threads, floor)});
        };
        rate("uniform reads, accesses/s", "read-uniform", "inline", 2.5, "floor-lz4");
        rate("... every near page may keep its blob", "read-uniform", "inline+", 2.5, "floor-lz4");
        rate("half writes, accesses/s", "write-uniform", "inline", 1.3, "floor");
    }
    aims.push_back({"steady working set: background, % of a CPU", program, "background_cpu_percent",
                    churn_row("steady", "1", "inline"), at_most, 1.0});
    return aims;
}

std::vector<Aim> redis_aims() {
    struct Workload {
        const char *name, *said;
        double rate_aim, total_aim;
    };
    static constexpr Workload workloads[] = {{"get-uniform", "Redis, GET uniform", 1.6, 1.5},
                                             {"get-zipf-0.99", "Redis, GET Zipf", 1.4, 1.3},
                                             {"get-set-50-50", "Redis, half SET", 1.1, 1.1}};
    const char* const program = "pnode-bench-redis";
    std::vector<Aim> aims;
    for (const Workload& each : workloads) {
        const auto row = [&](const char* variant) {
            return Row{{"workload", each.name}, {"variant", variant}};
        };
        aims.push_back({each.said + std::string(", requests/s"), program, "ratio_to_zram", row("pnode-small"),
                        at_least, each.rate_aim});
        aims.push_back(
            {"... p99", program, "p99_ns", row("pnode-small"), at_most, 0.9, {}, row("zram-small")});
        aims.push_back({"... equal total memory, requests/s", program, "ratio_to_zram", row("pnode-total"),
                        at_least, each.total_aim});
        aims.push_back(
            {"... nothing cold, to plain", program, "ratio_to_plain", row("pnode-near"), at_least, 0.99});
    }
    return aims;
}

// What is not compared with zram.
std::vector<Aim> other_aims() {
    std::vector<Aim> aims;
    for (const char* workload : {"mixed", "passed", "records"})
        for (const auto& [threads, said] : thread_counts)
            aims.push_back({std::string("allocating, to jemalloc: ") + workload + said,
                            "pnode-bench-malloc",
                            "ratio_to_jemalloc",
                            {{"workload", workload}, {"threads", threads}, {"allocator", "pnode"}},
                            at_least,
                            0.99});
    for (const auto& [variant, said] :
         {std::pair{"near", "fork(), nothing far, to plain"}, std::pair{"far", "fork(), 60 % far, to plain"}})
        aims.push_back({said,
                        "pnode-bench-fork",
                        "ratio_to_plain",
                        {{"variant", variant}, {"span", "fork() in the parent"}},
                        at_most,
                        1.15});
    const char* const scale = "pnode-bench-scale";
    const Row larger = {{"heap", "8 GiB"}}, sparse = {{"heap", "1024 GiB, sparse"}};
    aims.push_back({"a page of 8 GiB, to one of 1 GiB: read", scale, "read_ratio", larger, at_most, 1.15});
    aims.push_back({"... written", scale, "write_ratio", larger, at_most, 1.15});
    aims.push_back({"a page of 1 TiB, sparse: read", scale, "read_ratio", sparse, at_most, 1.15});
    aims.push_back({"... written", scale, "write_ratio", sparse, at_most, 1.15});
    aims.push_back({"opening 1 TiB, ms", scale, "open_ns", sparse, at_most, 10, {}, {}, 1e6});
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

void add_row(const std::vector<Run>& runs, const Aim& aim, Table* table) {
    const double unit = aim.theirs.empty() ? 1 : found(runs, aim, aim.theirs);
    const double value = found(runs, aim, aim.ours) / unit;
    if (std::isnan(value)) return;
    const bool is_met = aim.is == at_least ? value >= aim.aim : value <= aim.aim;
    table->rows.push_back({aim.what, (aim.is == at_least ? ">= " : "<= ") + decimal(aim.aim, 2),
                           decimal(value, 2), is_met ? "yes" : "no",
                           decimal(found(runs, aim, aim.floor) / unit, 2)});
}

}  // namespace

Table aims_of(const std::vector<Run>& runs) {
    Table table{"Aims", {"to zram, where nothing else is said", "aim", "measured", "met", "floor"}, {}};
    for (const std::vector<Aim>& aims : {fault_aims(), churn_aims(), redis_aims(), other_aims()})
        for (const Aim& aim : aims) add_row(runs, aim, &table);
    return table;
}

}  // namespace pnode::bench
