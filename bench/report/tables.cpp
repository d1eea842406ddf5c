#include "bench/report/tables.h"

#include <cstdio>
#include <stdexcept>

#include "bench/report/aims.h"

namespace pnode::bench {
namespace {

struct Column {
    const char* field;
    const char* title;
    double unit = 0;  // what a number is divided by; 0: text
    int digits = 0;
};

struct Shape {
    const char* program;
    const char* kind;  // of the rows
    const char* title;
    std::vector<Column> columns;
};

constexpr double us = 1e3, mebibyte = 1 << 20;

const std::vector<Shape>& shapes() {
    static const std::vector<Shape> all = {
        {"pnode-bench-fault",
         "row",
         "Faults and demotions",
         {{"case", "case"},
          {"threads", "threads"},
          {"engine", "engine"},
          {"codec", "codec"},
          {"p50_ns", "p50 us", us, 2},
          {"p99_ns", "p99 us", us, 2},
          {"mean_ns", "mean us", us, 2},
          {"per_s", "pages/s", 1, 0},
          {"spread", "spread", 1, 2},
          {"ratio_to_zram", "to zram", 1, 2}}},
        {"pnode-bench-churn",
         "row",
         "More pages than may stay",
         {{"case", "case"},
          {"near_percent", "near %"},
          {"threads", "threads"},
          {"engine", "engine"},
          {"p50_ns", "p50 us", us, 2},
          {"p99_ns", "p99 us", us, 2},
          {"cpu_ns", "CPU us", us, 2},
          {"per_s", "accesses/s", 1, 0},
          {"spread", "spread", 1, 2},
          {"near_bytes", "near MiB", mebibyte, 1},
          {"far_bytes", "far MiB", mebibyte, 1},
          {"background_cpu_percent", "background CPU %", 1, 2},
          {"ratio_to_zram", "to zram", 1, 2},
          {"reason", "missing"}}},
        {"pnode-bench-redis",
         "rate",
         "Redis",
         {{"workload", "workload"},
          {"variant", "variant"},
          {"per_s", "requests/s", 1, 0},
          {"spread", "spread", 1, 2},
          {"p50_ns", "p50 us", us, 0},
          {"p99_ns", "p99 us", us, 0},
          {"cpu_us", "CPU us", 1, 2},
          {"misses", "misses", 1, 3},
          {"dram_bytes", "DRAM MiB", mebibyte, 1},
          {"ratio_to_plain", "to plain", 1, 2},
          {"ratio_to_zram", "to zram", 1, 2}}},
        {"pnode-bench-redis",
         "memory",
         "Redis: memory",
         {{"variant", "variant"},
          {"limit_bytes", "limit MiB", mebibyte, 1},
          {"rss_bytes", "Rss MiB", mebibyte, 1},
          {"anonymous_bytes", "anonymous MiB", mebibyte, 1}}},
        {"pnode-bench-codec",
         "row",
         "Codecs",
         {{"corpus", "corpus"},
          {"codec", "codec"},
          {"block_bytes", "block KiB", 1024, 0},
          {"dictionary", "dictionary"},
          {"page_bytes", "bytes a page", 1, 0},
          {"ratio", "ratio", 1, 2},
          {"ratio_compressible", "of what is stored", 1, 2},
          {"stored_share", "stored %", 0.01, 1},
          {"compress_p50_ns", "compress p50 us", us, 2},
          {"compress_p99_ns", "p99 us", us, 2},
          {"decode_p50_ns", "decode p50 us", us, 2},
          {"decode_p99_ns", "p99 us", us, 2},
          {"fault_p50_ns", "fault p50 us", us, 1},
          {"fault_p99_ns", "p99 us", us, 1},
          {"fault_from", "fault from"},
          {"ratio_to_zram", "to zram", 1, 2},
          {"reason", "missing"}}},
        {"pnode-bench-codec", "missing", "Not on this machine", {{"corpus", "corpus"}, {"reason", "why"}}},
        {"pnode-bench-codec", "answer", "Which codec", {{"text", "answer"}}},
        {"pnode-bench-packing",
         "row",
         "Packing of the store",
         {{"when", "after"},
          {"blob_megabytes", "MB of blobs", 1, 1},
          {"slots_more_percent", "slots: % more", 1, 2},
          {"physical_more_percent", "physical: % more", 1, 2}}},
        {"pnode-bench-malloc",
         "row",
         "Allocating, nothing cold",
         {{"workload", "workload"},
          {"threads", "threads"},
          {"allocator", "allocator"},
          {"mallocs_per_s", "mallocs/s", 1, 0},
          {"spread", "spread", 1, 2},
          {"ratio_to_jemalloc", "to jemalloc", 1, 2},
          {"ratio_quartile_1", "quartile", 1, 2},
          {"ratio_quartile_3", "quartile", 1, 2}}},
        {"pnode-bench-fork",
         "row",
         "Forking",
         {{"variant", "variant"},
          {"span", "what"},
          {"anonymous_bytes", "resident MiB", mebibyte, 1},
          {"p50_ns", "p50 us", us, 0},
          {"spread", "spread", 1, 2},
          {"ratio_to_plain", "to plain", 1, 2}}},
        {"pnode-bench-scale",
         "row",
         "Large heaps, a page",
         {{"heap", "heap"},
          {"pages", "pages"},
          {"far_share", "far", 1, 2},
          {"open_ns", "open ms", 1e6, 2},
          {"read_ns", "read us", us, 2},
          {"read_ratio", "to the first", 1, 2},
          {"write_ns", "write us", us, 2},
          {"write_ratio", "to the first", 1, 2}}},
    };
    return all;
}

std::string cell(const Json& row, const Column& column) {
    if (column.unit == 0) return text(row, column.field);
    return decimal(number(row, column.field) / column.unit, column.digits);
}

Table table_of(const Run& run, const Shape& shape) {
    Table table{shape.title, {}, {}};
    for (const Column& column : shape.columns) table.columns.push_back(column.title);
    for (const Json& row : run.rows) {
        if (text(row, "kind") != shape.kind) continue;
        std::vector<std::string>& cells = table.rows.emplace_back();
        for (const Column& column : shape.columns) cells.push_back(cell(row, column));
    }
    return table;
}

std::string line_of(const std::vector<std::string>& cells) {
    std::string line = "|";
    for (const std::string& cell : cells) line += " " + cell + " |";
    return line + "\n";
}

// Of what a benchmark printed by itself, its name tells; pnode-bench-churn is two suites.
std::string suite_of(const Run& run) {
    const std::string told = text(run.header, "suite");
    if (!told.empty()) return told;
    const Json options = run.header.value("options", Json::object());
    if (options.value("near_percents", Json::array()).size() > 1) return "limits";
    const std::string prefix = "pnode-bench-";
    return run.program().starts_with(prefix) ? run.program().substr(prefix.size()) : "";
}

// What stands between the marks of `suite`; "" when it did not run.
std::string section(const std::string& suite, const std::vector<Run>& runs) {
    if (suite == "aims") {
        const Table aims = aims_of(runs);
        return aims.rows.empty() ? "" : "\n" + markdown(aims) + "\n";
    }
    std::string found;
    for (const Run& run : runs) {
        if (suite_of(run) != suite) continue;
        found += "\n" + conditions(run) + "\n";
        for (const Table& table : tables_of(run)) found += "\n" + markdown(table);
        for (const Json& note : run.header.value("notes", Json::array()))
            found += "\nNote: " + note.get<std::string>() + "\n";
        found += "\n";
    }
    return found;
}

}  // namespace

std::vector<Table> tables_of(const Run& run) {
    std::vector<Table> tables;
    for (const Shape& shape : shapes()) {
        if (run.program() != shape.program) continue;
        Table table = table_of(run, shape);
        if (!table.rows.empty()) tables.push_back(std::move(table));
    }
    return tables;
}

std::string markdown(const Table& table) {
    std::string lines = line_of(table.columns) + "|";
    for (std::size_t i = 0; i < table.columns.size(); ++i) lines += "---|";
    lines += "\n";
    for (const std::vector<std::string>& row : table.rows) lines += line_of(row);
    return lines;
}

std::string conditions(const Run& run) {
    const Json machine = run.header.value("machine", Json::object());
    char memory[32];
    std::snprintf(memory, sizeof memory, "%.1f", number(machine, "memory_bytes") / (1 << 30));
    const bool is_virtual = machine.value("virtual", false);
    return std::string(is_virtual ? "A virtual machine: " : "") + text(machine, "cpu") + ", " +
           text(machine, "cpus") + " CPUs, " + memory + " GiB; " + text(run.header, "kernel") + "; `" +
           run.program() + "` " + run.header.value("options", Json::object()).dump() + ".";
}

std::string with_tables(const std::string& document, const std::vector<Run>& runs) {
    static const std::string begin = "<!-- pnode bench ", close = " -->\n", end = "<!-- end -->";
    std::string result;
    std::size_t at = 0;
    for (std::size_t mark; (mark = document.find(begin, at)) != std::string::npos;) {
        const std::size_t named = document.find(close, mark);
        const std::size_t ends = document.find(end, mark);
        if (named == std::string::npos || ends == std::string::npos || ends < named)
            throw std::runtime_error("a mark without its end: " + document.substr(mark, 40));
        const std::string suite = document.substr(mark + begin.size(), named - mark - begin.size());
        const std::size_t from = named + close.size();
        const std::string fresh = section(suite, runs);
        result +=
            document.substr(at, from - at) + (fresh.empty() ? document.substr(from, ends - from) : fresh);
        at = ends;
    }
    return result + document.substr(at);
}

}  // namespace pnode::bench
