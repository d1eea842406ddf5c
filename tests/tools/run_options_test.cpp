// What `pnode run` says of its own command line: exit code 2 and one line that names the cure.
#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/options/options.h"
#include "tests/tools/bad_values.h"
#include "tests/tools/command.h"

namespace pnode::test {
namespace {

constexpr int usage = 2;

TEST(RunOptions, BadValuesAreRefusedWithTheRange) {
    for (const OptionSpec& spec : option_table()) {
        for (const std::string& value : bad_values(spec)) {
            const std::string flag = std::string("--") + spec.name;
            const Outcome outcome = pnode_command({"run", flag + "=" + value, "--", "true"});
            expect_refusal(outcome, usage, flag + " " + value);
            EXPECT_NE(outcome.errors.find(option_range(spec)), std::string::npos) << outcome.errors;
        }
    }
}

TEST(RunOptions, AValueThatLooksLikeAFlagIsAValue) {
    expect_refusal(pnode_command({"run", "--near", "-5M", "--", "true"}), usage, "--near -5M");
}

TEST(RunOptions, AMissingValueIsRefused) {
    for (const OptionSpec& spec : option_table()) {
        if (spec.type == OptionType::flag) continue;
        const std::string flag = std::string("--") + spec.name;
        expect_refusal(pnode_command({"run", flag, "--", "true"}), usage, flag + " needs one value");
        expect_refusal(pnode_command({"run", flag + "=", "--", "true"}), usage, flag + " needs one value");
    }
}

TEST(RunOptions, ARepeatedOptionIsRefused) {
    for (const OptionSpec& spec : option_table()) {
        const std::string once = std::string("--") + spec.name + "=" + good_values(spec).front();
        const std::string flag = std::string("--") + spec.name;
        expect_refusal(pnode_command({"run", once, once, "--", "true"}), usage, flag + " is given 2 times");
    }
}

TEST(RunOptions, GoodValuesReachTheProgramAsVariables) {
    for (const OptionSpec& spec : option_table()) {
        if (std::string(spec.name) == "stats-every") continue;  // not alone: see below
        const std::string value = good_values(spec).front();
        const Outcome outcome = pnode_command(
            {"run", std::string("--") + spec.name + "=" + value, "--", "printenv", spec.environment});
        EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
        EXPECT_EQ(outcome.output, value + "\n");
    }
}

TEST(RunOptions, AnOptionWinsOverItsVariable) {
    const Outcome outcome =
        pnode_command({"run", "--near", "2M", "--", "printenv", "PNODE_NEAR"}, {{"PNODE_NEAR", "8M"}});
    EXPECT_EQ(outcome.output, "2M\n");
}

TEST(RunOptions, AVariableWithoutItsOptionPasses) {
    const Outcome outcome = pnode_command({"run", "--", "printenv", "PNODE_NEAR"}, {{"PNODE_NEAR", "8M"}});
    EXPECT_EQ(outcome.output, "8M\n");
}

TEST(RunOptions, BadVariablesAreToldOnceAndDoNotReachTheProgram) {
    const Outcome outcome =
        pnode_command({"run", "--", "sh", "-c", "env | grep -c ^PNODE_N"},
                      {{"PNODE_NEAR", "rubbish"}, {"PNODE_NAER", "1M"}, {"PNODE_NODE", "memory:64M"}});
    EXPECT_EQ(outcome.output, "1\n");
    EXPECT_NE(outcome.errors.find("pnode: PNODE_NEAR=rubbish: "), std::string::npos) << outcome.errors;
    EXPECT_NE(outcome.errors.find("pnode: PNODE_NAER is not"), std::string::npos) << outcome.errors;
    EXPECT_EQ(std::count(outcome.errors.begin(), outcome.errors.end(), '\n'), 2) << outcome.errors;
}

TEST(RunOptions, AFlagNeedsNoValue) {
    EXPECT_EQ(pnode_command({"run", "--strict", "--", "printenv", "PNODE_STRICT"}).output, "true\n");
}

TEST(RunOptions, StatisticsOverAndOverNeedAFile) {
    expect_refusal(pnode_command({"run", "--stats-every", "100", "--", "true"}), usage, "--stats FILE");
    EXPECT_EQ(pnode_command({"run", "--stats-every", "100", "--stats", "x.json", "--", "true"}).exit_code, 0);
}

TEST(RunOptions, WhatIsUnknownIsNamed) {
    expect_refusal(pnode_command({"run", "--naer", "1M", "--", "true"}), usage, "there is no option --naer");
    expect_refusal(pnode_command({"run", "true"}), usage, "true is not expected here");
    expect_refusal(pnode_command({"run"}), usage, "no program to run");
    expect_refusal(pnode_command({"run", "--"}), usage, "no program to run");
    expect_refusal(pnode_command({"rnu", "--", "true"}), usage, "rnu is not known");
    expect_refusal(pnode_command({}), usage, "subcommand is required");
    expect_refusal(pnode_command({"probe", "--", "true"}), usage, "only pnode run");
}

TEST(RunOptions, HelpAndVersionAreNoErrors) {
    const Outcome help = pnode_command({"run", "--help"});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_NE(help.output.find(options_help()), std::string::npos);
    EXPECT_EQ(pnode_command({"--help"}).exit_code, 0);
    const Outcome version = pnode_command({"--version"});
    EXPECT_EQ(version.exit_code, 0);
    EXPECT_TRUE(version.output.starts_with("pnode ")) << version.output;
    EXPECT_EQ(pnode_command({"options", "--markdown"}).output, options_markdown());
}

}  // namespace
}  // namespace pnode::test
