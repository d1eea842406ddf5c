// What the benchmarks printed with --json: runs, each a header and its rows.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pnode::bench {

using Json = nlohmann::ordered_json;

struct Run {
    Json header;
    std::vector<Json> rows;
    std::string program() const { return header.value("program", ""); }
};

// Lines of any number of runs one after another; what is no JSON object is passed over. Throws
// std::runtime_error when a row comes before any header.
std::vector<Run> parse_runs(const std::string& lines);
std::string lines_of(const std::vector<Run>& runs);

// The number in a field; NaN when it is missing or null.
double number(const Json& row, const std::string& field);
std::string text(const Json& row, const std::string& field);
// With that many digits after the point; "-" for NaN.
std::string decimal(double value, int digits);

}  // namespace pnode::bench
