#include "bench/report/results.h"

#include <cmath>
#include <cstdio>
#include <sstream>
#include <stdexcept>

namespace pnode::bench {

std::vector<Run> parse_runs(const std::string& lines) {
    std::vector<Run> runs;
    std::istringstream stream(lines);
    for (std::string line; std::getline(stream, line);) {
        const Json object = Json::parse(line, nullptr, false);
        if (!object.is_object()) continue;
        if (text(object, "kind") == "header")
            runs.push_back({object, {}});
        else if (runs.empty())
            throw std::runtime_error("a row without a header before it: " + line.substr(0, 80));
        else
            runs.back().rows.push_back(object);
    }
    return runs;
}

std::string lines_of(const std::vector<Run>& runs) {
    std::string lines;
    for (const Run& run : runs) {
        lines += run.header.dump() + "\n";
        for (const Json& row : run.rows) lines += row.dump() + "\n";
    }
    return lines;
}

double number(const Json& row, const std::string& field) {
    const auto found = row.find(field);
    return found != row.end() && found->is_number() ? found->get<double>() : std::nan("");
}

std::string text(const Json& row, const std::string& field) {
    const auto found = row.find(field);
    if (found == row.end() || found->is_null()) return "";
    return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string decimal(double value, int digits) {
    if (std::isnan(value)) return "-";
    char buffer[40];
    std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
    return buffer;
}

}  // namespace pnode::bench
