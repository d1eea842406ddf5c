#include "bench/codec/report.h"

#include <cmath>
#include <cstdio>

#include "bench/common/machine.h"

namespace pnode::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr double page_bytes = 4096;

Json quotient(double dividend, double divisor) {
    return divisor > 0 ? ratio_json(dividend / divisor) : Json();
}

Json whole(double ns) {
    return ns > 0 ? Json(std::llround(ns)) : Json();
}

// Null where nothing was measured, in the order of the columns.
Json row_json(const CorpusResults& result, const CodecRow& row) {
    Json line = {{"kind", "row"},
                 {"corpus", result.corpus},
                 {"codec", row.variant.codec},
                 {"block_bytes", row.variant.block_bytes},
                 {"dictionary", row.variant.has_dictionary},
                 {"pages", result.pages}};
    for (const char* name :
         {"page_bytes", "ratio", "ratio_compressible", "stored_share", "far_bytes", "slot_bytes",
          "blob_bytes", "near_bytes", "compress_p50_ns", "compress_p99_ns", "decode_p50_ns", "decode_p99_ns"})
        line[name] = nullptr;
    if (row.packed) {
        const Packed& packed = *row.packed;
        const auto total = static_cast<double>(packed.total_bytes());
        const auto bytes = page_bytes * static_cast<double>(packed.pages);
        line["page_bytes"] = std::round(total / static_cast<double>(packed.pages) * 10) / 10;
        line["ratio"] = quotient(bytes, total);
        line["ratio_compressible"] = quotient(page_bytes * static_cast<double>(packed.stored_pages),
                                              static_cast<double>(packed.far_bytes));
        line["stored_share"] =
            std::round(1000 * static_cast<double>(packed.stored_pages) / static_cast<double>(packed.pages)) /
            1000;
        line["far_bytes"] = packed.far_bytes;
        line["slot_bytes"] = packed.slot_bytes;
        line["blob_bytes"] = packed.blob_bytes;
        line["near_bytes"] = packed.near_bytes();
        line["compress_p50_ns"] = whole(packed.compress.p50_ns);
        line["compress_p99_ns"] = whole(packed.compress.p99_ns);
        line["decode_p50_ns"] = whole(packed.decode.p50_ns);
        line["decode_p99_ns"] = whole(packed.decode.p99_ns);
    }
    line["fault_p50_ns"] = whole(row.fault_p50_ns);
    line["fault_p99_ns"] = whole(row.fault_p99_ns);
    line["fault_from"] = row.fault_p50_ns <= 0   ? Json()
                         : row.fault_is_computed ? Json("computed")
                                                 : Json("heap");
    line["ratio_to_zram"] = row.packed && result.zram_bytes
                                ? quotient(static_cast<double>(*result.zram_bytes),
                                           static_cast<double>(row.packed->total_bytes()))
                                : Json();
    line["reason"] = row.reason.empty() ? Json() : Json(row.reason);
    return line;
}

Json zram_json(const CorpusResults& result) {
    Json line = row_json(result, {{"zram:lz4", 4096, false}, {}, "", 0, 0, false});
    if (result.zram_bytes) {
        const auto total = static_cast<double>(*result.zram_bytes);
        line["page_bytes"] = std::round(total / static_cast<double>(result.pages) * 10) / 10;
        line["ratio"] = quotient(page_bytes * static_cast<double>(result.pages), total);
        line["far_bytes"] = *result.zram_bytes;
        line["ratio_to_zram"] = total > 0 ? Json(1) : Json();
    }
    if (result.zram_fault) {
        line["fault_p50_ns"] = whole(result.zram_fault->p50_ns);
        line["fault_p99_ns"] = whole(result.zram_fault->p99_ns);
        line["fault_from"] = "kernel";
    }
    const std::string& why = result.zram_bytes ? result.why_no_zram_fault : result.why_no_zram;
    line["reason"] = why.empty() ? Json() : Json(why);
    return line;
}

std::vector<Json> lines_of(const CorpusResults& result) {
    std::vector<Json> lines;
    if (!result.missing.empty())
        return {{{"kind", "missing"}, {"corpus", result.corpus}, {"reason", result.missing}}};
    for (const CodecRow& row : result.rows) lines.push_back(row_json(result, row));
    lines.push_back(zram_json(result));
    return lines;
}

void print_csv(const Json& line) {
    std::string text;
    for (const auto& [name, value] : line.items()) {
        if (name == "kind") continue;
        if (!text.empty()) text += ",";
        if (value.is_string()) {
            std::string quoted = value.get<std::string>();
            for (std::size_t at = 0; (at = quoted.find('"', at)) != std::string::npos; at += 2)
                quoted.insert(at, "\"");
            text += "\"" + quoted + "\"";
        } else if (!value.is_null()) {
            text += value.dump();
        }
    }
    std::puts(text.c_str());
}

void print_csv_heading() {
    std::string names;
    const Json line = row_json({}, {});
    for (const auto& [name, value] : line.items())
        if (name != "kind") names += (names.empty() ? "" : ",") + name;
    std::puts(names.c_str());
}

// "-" for null.
std::string number(const Json& line, const char* name, double unit, int digits) {
    if (!line.contains(name) || !line[name].is_number()) return "-";
    char text[40];
    std::snprintf(text, sizeof text, "%.*f", digits, line[name].get<double>() / unit);
    return text;
}

void print_table_line(const Json& line) {
    const std::string name =
        line["codec"].get<std::string>() + (line["dictionary"].get<bool>() ? "+dict" : "");
    std::printf(
        "%-14s %3zu KiB %7s %7s %7s %8s %9s %8s %8s %8s %8s %8s%s %8s%s%s\n", name.c_str(),
        line["block_bytes"].get<std::size_t>() / 1024, number(line, "page_bytes", 1, 0).c_str(),
        number(line, "ratio", 1, 2).c_str(), number(line, "ratio_compressible", 1, 2).c_str(),
        number(line, "stored_share", 0.01, 1).c_str(), number(line, "compress_p50_ns", 1e3, 2).c_str(),
        number(line, "compress_p99_ns", 1e3, 2).c_str(), number(line, "decode_p50_ns", 1e3, 2).c_str(),
        number(line, "decode_p99_ns", 1e3, 2).c_str(), number(line, "fault_p50_ns", 1e3, 1).c_str(),
        number(line, "fault_p99_ns", 1e3, 1).c_str(), line["fault_from"] == "computed" ? "*" : " ",
        number(line, "ratio_to_zram", 1, 2).c_str(), line["reason"].is_null() ? "" : "  ",
        line["reason"].is_null() ? "" : line["reason"].get<std::string>().c_str());
}

void print_table(const CorpusResults& result) {
    if (!result.missing.empty()) {
        std::printf("\n%s: %s\n", result.corpus.c_str(), result.missing.c_str());
        return;
    }
    std::printf("\n%s: %s, %llu pages\n", result.corpus.c_str(), result.source.c_str(),
                static_cast<unsigned long long>(result.pages));
    std::printf("%-14s %7s %7s %7s %7s %8s %9s %8s %8s %8s %8s %8s  %8s\n", "", "", "bytes", "", "stored",
                "stored", "compress", "us", "decode", "us", "fault", "us", "to");
    std::printf("%-14s %7s %7s %7s %7s %8s %9s %8s %8s %8s %8s %8s  %8s\n", "codec", "block", "a page",
                "ratio", "ratio", "%", "p50", "p99", "p50", "p99", "p50", "p99", "zram");
    for (const Json& line : lines_of(result)) print_table_line(line);
}

}  // namespace

void CodecReport::begin() const {
    if (options_.output == CodecOutput::json)
        std::puts(header("pnode-bench-codec", options_.as_json()).dump().c_str());
    if (options_.output == CodecOutput::csv) print_csv_heading();
}

void CodecReport::add(const CorpusResults& result) const {
    if (options_.output == CodecOutput::table)
        print_table(result);
    else
        for (const Json& line : lines_of(result)) {
            if (options_.output == CodecOutput::json)
                std::puts(line.dump().c_str());
            else if (line["kind"] == "row")
                print_csv(line);
        }
    std::fflush(stdout);
}

void CodecReport::end(const std::vector<CorpusResults>& results) const {
    std::vector<CorpusResults> measured;
    for (const CorpusResults& each : results)
        if (each.missing.empty()) measured.push_back(each);
    const std::string words = measured.empty() ? "There is nothing to choose a codec for." : answer(measured);
    if (options_.output == CodecOutput::json)
        std::puts(Json({{"kind", "answer"}, {"text", words}}).dump().c_str());
    else if (options_.output == CodecOutput::table)
        std::printf(
            "\nBytes are physical: headers, slots, slabs, dictionaries, and whole pages for what stays near. "
            "Times: a "
            "4 KiB page of\na block; a fault brings the whole block, in a heap with the inline engine; *: "
            "computed. \"To zram\": "
            "density, above 1 is denser.\n%s\n",
            words.c_str());
    else
        std::fprintf(stderr, "%s\n", words.c_str());
}

}  // namespace pnode::bench
