// Runs a benchmark and reads its --json output.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/tools/process.h"

namespace pnode::test {

using Lines = std::vector<nlohmann::json>;

// The first line is the header that every benchmark begins with.
inline Lines json_lines(const std::vector<std::string>& command) {
    const Outcome outcome = run_command(command);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    Lines lines;
    std::istringstream text(outcome.output);
    for (std::string line; std::getline(text, line);) {
        if (!nlohmann::json::accept(line)) {
            ADD_FAILURE() << "not JSON: " << line;
            continue;
        }
        lines.push_back(nlohmann::json::parse(line));
    }
    if (lines.empty()) {
        ADD_FAILURE() << "no line: " << outcome.errors;
        lines.emplace_back(nlohmann::json::object());
    }
    return lines;
}

inline void expect_header(const nlohmann::json& line, const std::string& program) {
    EXPECT_EQ(line.value("kind", ""), "header");
    EXPECT_EQ(line.value("program", ""), program);
    EXPECT_TRUE(line.contains("machine") && line["machine"].contains("cpu") &&
                line["machine"].contains("cpus"));
    EXPECT_TRUE(line.contains("kernel"));
    EXPECT_TRUE(line.contains("options") && line["options"].is_object());
}

}  // namespace pnode::test
