// `pnode` as built, with an empty library to preload.
#pragma once

#include "tests/tools/process.h"

namespace pnode::test {

inline Outcome pnode_command(std::vector<std::string> arguments, Variables variables = {}) {
    arguments.insert(arguments.begin(), PNODE_COMMAND);
    variables.insert(variables.begin(), {"PNODE_LIBRARY", EMPTY_PRELOAD});
    return run_command(arguments, variables);
}

// One line, that exit code, and `part` in the line.
inline void expect_refusal(const Outcome& outcome, int exit_code, const std::string& part) {
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.errors;
    EXPECT_EQ(outcome.signal, 0);
    EXPECT_EQ(outcome.output, "");
    EXPECT_TRUE(is_one_line_of_pnode(outcome.errors)) << outcome.errors;
    EXPECT_NE(outcome.errors.find(part), std::string::npos) << outcome.errors << "lacks: " << part;
}

}  // namespace pnode::test
