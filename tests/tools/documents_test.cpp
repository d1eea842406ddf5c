// The documents hold the table of the options as the code has it, between two marks.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "runtime/options/options.h"

namespace pnode {
namespace {

std::string between_marks(const std::string& name) {
    std::ifstream file(std::string(PNODE_SOURCE_FOLDER) + "/" + name);
    std::stringstream text;
    text << file.rdbuf();
    const std::string begin = "<!-- pnode options --markdown -->\n";
    const std::string end = "<!-- end -->";
    const std::size_t from = text.str().find(begin);
    const std::size_t to = text.str().find(end, from);
    if (from == std::string::npos || to == std::string::npos) return name + " has no marks";
    return text.str().substr(from + begin.size(), to - from - begin.size());
}

constexpr const char* cure = "put the output of `pnode options --markdown` between the marks";

TEST(Documents, OptionsFileHoldsTheTable) {
    EXPECT_EQ(between_marks("docs/options.md"), options_markdown()) << cure;
}
TEST(Documents, ReadmeHoldsTheTable) {
    EXPECT_EQ(between_marks("README.md"), options_markdown()) << cure;
}

TEST(Documents, HelpNamesEveryOptionAndFitsTheScreen) {
    const std::string help = options_help();
    for (const OptionSpec& spec : option_table()) {
        EXPECT_NE(help.find(std::string("  --") + spec.name), std::string::npos) << spec.name;
        EXPECT_NE(help.find(std::string("[") + spec.environment + "]"), std::string::npos) << spec.name;
    }
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

}  // namespace
}  // namespace pnode
