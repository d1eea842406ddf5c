// `pnode probe` tells the same as JSON and as text.
#include <gtest/gtest.h>

#include "nlohmann/json.hpp"
#include "tests/tools/command.h"

namespace pnode::test {
namespace {

TEST(Probe, JsonIsOneValidObject) {
    const Outcome outcome = pnode_command({"probe", "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    const auto report = nlohmann::json::parse(outcome.output, nullptr, false);
    EXPECT_TRUE(report.is_object()) << outcome.output;
    EXPECT_TRUE(report.contains("kernel")) << outcome.output;
}

// Every cure in the JSON stands in the text as a command that can be copied.
void expect_cures(const nlohmann::json& value, const std::string& text) {
    if (value.is_object() && value.contains("cure") && value["cure"].is_string() &&
        !value["cure"].get<std::string>().empty()) {
        EXPECT_NE(text.find("-> to cure: " + value["cure"].get<std::string>()), std::string::npos) << text;
    }
    if (!value.is_structured()) return;
    for (const auto& member : value) expect_cures(member, text);
}

TEST(Probe, TextNamesEveryTopicAndEveryCure) {
    const Outcome outcome = pnode_command({"probe"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    const auto report = nlohmann::json::parse(pnode_command({"probe", "--json"}).output, nullptr, false);
    ASSERT_TRUE(report.is_object());
    for (const auto& [key, value] : report.items()) {
        std::string label = key;
        for (char& letter : label) letter = letter == '_' ? ' ' : letter;
        EXPECT_NE(outcome.output.find(label), std::string::npos) << label << " is not in\n" << outcome.output;
    }
    expect_cures(report, outcome.output);
}

}  // namespace
}  // namespace pnode::test
