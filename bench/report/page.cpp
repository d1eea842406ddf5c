#include "bench/report/page.h"

#include <cmath>
#include <cstdlib>
#include <map>

#include "bench/common/samples.h"
#include "bench/report/aims.h"
#include "bench/report/charts.h"
#include "bench/report/tables.h"

namespace pnode::bench {
namespace {

constexpr const char* style =
    "body{font-family:sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0;font-size:13px}"
    "th,td{border:1px solid #ccc;padding:3px 8px;text-align:right}th{background:#f2f2f2}"
    "td:first-child{text-align:left}figure{margin:1.5em "
    "0;overflow-x:auto}.conditions{color:#555;font-size:13px}";

// One curve an engine and codec: latency over percentile, places on the axis evenly spaced.
Chart latency_chart(const Run& run, const std::string& name, const std::string& title) {
    Chart chart{title, "percentile", "us", {}, true, {}};
    for (std::size_t i = 0; i < latency_percents.size(); ++i) {
        char label[16];
        snprintf(label, sizeof label, "%g", latency_percents[i]);
        chart.x_labels.emplace_back(static_cast<double>(i), label);
    }
    for (const Json& row : run.rows) {
        if (text(row, "case") != name || number(row, "threads") != 1) continue;
        const auto percentiles = row.find("percentiles_ns");
        if (percentiles == row.end() || !percentiles->is_object()) continue;
        Series series{text(row, "engine") + " " + text(row, "codec"), {}};
        for (const auto& [x, label] : chart.x_labels)
            if (const double ns = number(*percentiles, label); ns > 0)
                series.points.emplace_back(x, ns / 1e3);
        if (!series.points.empty()) chart.series.push_back(std::move(series));
    }
    return chart;
}

std::size_t near_limits(const Run& run) {
    return run.header.value("options", Json::object()).value("near_percents", Json::array()).size();
}

Chart limits_chart(const std::vector<Run>& runs) {
    Chart chart{"Uniform reads: accesses/s against the near limit",
                "near limit, % of the pages",
                "accesses/s",
                {},
                true,
                {}};
    std::map<std::string, std::map<double, double>> curves;
    for (const Run& run : runs) {
        if (run.program() != "pnode-bench-churn") continue;
        if (near_limits(run) < 2) continue;
        for (const Json& row : run.rows)
            if (text(row, "case") == "read-uniform" && number(row, "threads") == 1 &&
                number(row, "per_s") > 0)
                curves[text(row, "engine")][number(row, "near_percent")] = number(row, "per_s");
    }
    for (const auto& [engine, points] : curves)
        chart.series.push_back({engine, {points.begin(), points.end()}});
    return chart;
}

// "zstd:3+dict 16K": short enough to stand beside a point.
std::string variant_name(const Json& row) {
    return text(row, "codec") + (row.value("dictionary", false) ? "+dict " : " ") +
           std::to_string(std::lround(number(row, "block_bytes") / 1024)) + "K";
}

std::vector<std::string> corpora_of(const Run& run) {
    std::vector<std::string> names;
    for (const Json& row : run.rows)
        if (text(row, "kind") == "row" && (names.empty() || names.back() != text(row, "corpus")))
            names.push_back(text(row, "corpus"));
    return names;
}

// Block sizes have colours, the kernel its own.
std::size_t colour_of(const Json& row) {
    if (text(row, "fault_from") == "kernel") return 1;
    const double kib = number(row, "block_bytes") / 1024;
    return kib <= 4 ? 0 : kib <= 16 ? 2 : 4;
}

std::string ratio_chart(const Run& run, const std::string& corpus) {
    std::vector<Spot> spots;
    for (const Json& row : run.rows)
        if (text(row, "corpus") == corpus && number(row, "ratio") > 0 && number(row, "fault_p50_ns") > 0)
            spots.push_back(
                {variant_name(row), number(row, "fault_p50_ns") / 1e3, number(row, "ratio"), colour_of(row)});
    return scatter_chart(corpus + ": ratio against the cost of a fault", "a fault, us (p50)",
                         "ratio, all bytes counted", spots);
}

std::string bytes_chart(const Run& run, const std::string& corpus) {
    std::vector<Bar> bars;
    for (const Json& row : run.rows)
        if (text(row, "corpus") == corpus && number(row, "page_bytes") >= 0)
            bars.push_back({variant_name(row), number(row, "page_bytes")});
    return bar_chart(corpus + ": far bytes of a page, by codec", "bytes of 4096, all counted", bars);
}

// One corpus stored many ways: two charts. Many corpora: one, of how dense they are against zram.
std::string codec_charts(const Run& run) {
    const std::vector<std::string> corpora = corpora_of(run);
    if (corpora.size() == 1)
        return "<figure>" + ratio_chart(run, corpora[0]) + "</figure>\n<figure>" +
               bytes_chart(run, corpora[0]) + "</figure>\n";
    std::vector<Bar> bars;
    for (const Json& row : run.rows)
        if (number(row, "page_bytes") >= 0)
            bars.push_back({text(row, "corpus") + " " + variant_name(row), number(row, "page_bytes")});
    return "<figure>" +
           bar_chart("Far bytes of a page, by corpus and codec", "bytes of 4096, all counted", bars) +
           "</figure>\n";
}

std::string charts_of(const Run& run) {
    if (run.program() == "pnode-bench-codec") return codec_charts(run);
    if (run.program() == "pnode-bench-fault")
        return "<figure>" +
               line_chart(latency_chart(run, "far-random", "Reading random far pages, one thread: latency")) +
               "</figure>\n";
    if (run.program() == "pnode-bench-churn" && near_limits(run) == 1)
        return "<figure>" +
               line_chart(
                   latency_chart(run, "read-uniform", "Uniform reads, half of the pages near: latency")) +
               "</figure>\n";
    return "";
}

std::string html(const Table& table) {
    std::string lines = "<table><caption>" + escaped(table.title) + "</caption><tr>";
    for (const std::string& column : table.columns) lines += "<th>" + escaped(column) + "</th>";
    lines += "</tr>\n";
    for (const std::vector<std::string>& row : table.rows) {
        lines += "<tr>";
        for (const std::string& cell : row) lines += "<td>" + escaped(cell) + "</td>";
        lines += "</tr>\n";
    }
    return lines + "</table>\n";
}

// JSON inside a script element: "</script>" must not occur in it.
std::string script_safe(std::string lines) {
    for (std::size_t at = 0; (at = lines.find("</", at)) != std::string::npos;) lines.replace(at, 2, "<\\/");
    return lines;
}

}  // namespace

std::string html_page(const std::vector<Run>& runs) {
    std::string page =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pnode bench</title><style>" +
        std::string(style) + "</style></head><body>\n<h1>pnode bench</h1>\n" +
        "<p>Everything of one table was measured in turns in one run; compare within a table only. "
        "Ratios to zram above 1 are faster than kernel zram.</p>\n<figure>" +
        line_chart(limits_chart(runs)) + "</figure>\n";
    if (const Table aims = aims_of(runs); !aims.rows.empty()) page += html(aims);
    for (const Run& run : runs) {
        page += "<section><h2>" + escaped(run.program()) + "</h2>\n<p class=\"conditions\">" +
                escaped(conditions(run)) + "</p>\n" + charts_of(run);
        for (const Table& table : tables_of(run)) page += html(table);
        for (const Json& note : run.header.value("notes", Json::array()))
            page += "<p>Note: " + escaped(note.get<std::string>()) + "</p>\n";
        page += "</section>\n";
    }
    return page + "<script type=\"application/jsonl\" id=\"results\">\n" + script_safe(lines_of(runs)) +
           "</script>\n</body></html>\n";
}

}  // namespace pnode::bench
