// The table of the options, and what becomes of the environment.
#include "runtime/options/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "cxl/sizes.h"
#include "tests/tools/bad_values.h"

namespace pnode {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const OptionSpec& spec_named(const std::string& name) {
    for (const OptionSpec& spec : option_table()) {
        if (name == spec.name) return spec;
    }
    ADD_FAILURE() << "no option " << name;
    return option_table().front();
}

// The environment without a variable of ours, each test's own.
class Environment : public testing::Test {
  protected:
    Environment() {
        std::vector<std::string> ours;
        for (char** entry = environ; *entry != nullptr; ++entry) {
            const std::string text = *entry;
            if (text.starts_with("PNODE_")) ours.push_back(text.substr(0, text.find('=')));
        }
        for (const std::string& name : ours) ::unsetenv(name.c_str());
    }

    Options read() {
        warnings.clear();
        return Options::from_environment(
            [](const char* line, void* list) {
                static_cast<std::vector<std::string>*>(list)->push_back(line);
            },
            &warnings);
    }

    std::vector<std::string> warnings;
};

TEST(OptionTable, NamesAreUniqueAndSpelledAlike) {
    std::set<std::string> names;
    for (const OptionSpec& spec : option_table()) {
        std::string expected = "PNODE_";
        for (const char letter : std::string(spec.name))
            expected += letter == '-' ? '_' : static_cast<char>(std::toupper(letter));
        EXPECT_EQ(spec.environment, expected);
        EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
        EXPECT_EQ(*spec.metavar == '\0', spec.type == OptionType::flag) << spec.name;
        EXPECT_FALSE(option_range(spec).empty()) << spec.name;
        EXPECT_NE(*spec.default_text == '\0', *spec.default_words == '\0')
            << spec.name << ": one of the two tells the default";
    }
}

TEST(OptionTable, DefaultsAreValuesThatTheOptionTakes) {
    for (const OptionSpec& spec : option_table()) {
        if (*spec.default_text == '\0') continue;
        Options options;
        std::string why;
        EXPECT_TRUE(parse_option(spec, spec.default_text, &options, &why)) << spec.name << ": " << why;
    }
}

TEST(OptionTable, BadValuesAreRefusedWithTheRangeAndChangeNothing) {
    for (const OptionSpec& spec : option_table()) {
        std::vector<std::string> bad = test::bad_values(spec);
        bad.emplace_back("");
        for (const std::string& value : bad) {
            Options options = Options::defaults();
            options.node = "untouched";
            std::string why;
            EXPECT_FALSE(parse_option(spec, value, &options, &why)) << spec.name << "=" << value;
            EXPECT_THAT(why, HasSubstr(option_range(spec))) << spec.name << "=" << value;
            EXPECT_EQ(options.node, "untouched");
        }
    }
}

TEST(OptionTable, GoodValuesAreTaken) {
    for (const OptionSpec& spec : option_table()) {
        for (const std::string& value : test::good_values(spec)) {
            Options options;
            std::string why;
            EXPECT_TRUE(parse_option(spec, value, &options, &why))
                << spec.name << "=" << value << ": " << why;
        }
    }
}

TEST(OptionTable, EndsOfARangeAreInIt) {
    const OptionSpec& near = spec_named("near");
    Options options;
    std::string why;
    EXPECT_TRUE(parse_option(near, "1048576", &options, &why)) << why;
    EXPECT_EQ(options.near_bytes_max, 1048576u);
    EXPECT_FALSE(parse_option(near, "1048575", &options, &why));
    EXPECT_TRUE(parse_option(near, std::to_string(physical_memory_bytes()), &options, &why)) << why;
    EXPECT_EQ(options.near_bytes_max, physical_memory_bytes());
    EXPECT_FALSE(parse_option(near, std::to_string(physical_memory_bytes() + 1), &options, &why));
    EXPECT_EQ(options.near_bytes_max, physical_memory_bytes());
}

TEST_F(Environment, WhenEmptyGivesTheDefaultsWithoutAWord) {
    const Options options = read();
    EXPECT_THAT(warnings, IsEmpty());
    EXPECT_GE(options.near_bytes_max, memory_bytes_available() / 2 - 1);
    EXPECT_LE(options.near_bytes_max, memory_bytes_available() / 2 + 1);
    EXPECT_EQ(options.far_bytes_max, 0u);
    EXPECT_EQ(options.node, "");
    EXPECT_EQ(options.codec, "lz4");
    EXPECT_EQ(options.engine, static_cast<std::uint32_t>(PN_ENGINE_AUTO));
    EXPECT_EQ(options.stats, "");
    EXPECT_EQ(options.stats_every_ms, 0u);
    EXPECT_EQ(options.activation_bytes, std::uint64_t{16} << 20);
    EXPECT_EQ(options.capture, static_cast<std::uint32_t>(Options::capture_malloc | Options::capture_mmap));
    EXPECT_EQ(options.capture_bytes_min, std::uint64_t{1} << 20);
    EXPECT_FALSE(options.verbose || options.strict || options.stress);
    EXPECT_EQ(options.hide, 0u);
}

TEST_F(Environment, EveryVariableReachesItsMember) {
    for (const auto& [name, value] : {std::pair{"PNODE_NEAR", "64M"},
                                      {"PNODE_FAR", "1G"},
                                      {"PNODE_NODE", "memory:32M"},
                                      {"PNODE_CODEC", "zstd"},
                                      {"PNODE_ENGINE", "thread"},
                                      {"PNODE_STATS", "-"},
                                      {"PNODE_STATS_EVERY", "250"},
                                      {"PNODE_ACTIVATION", "0"},
                                      {"PNODE_VERBOSE", "1"},
                                      {"PNODE_STRICT", "yes"},
                                      {"PNODE_STRESS", "on"},
                                      {"PNODE_HIDE", "userfaultfd"}}) {
        ::setenv(name, value, 1);
    }
    const Options options = read();
    EXPECT_THAT(warnings, IsEmpty());
    EXPECT_EQ(options.near_bytes_max, std::uint64_t{64} << 20);
    EXPECT_EQ(options.far_bytes_max, std::uint64_t{1} << 30);
    EXPECT_EQ(options.node, "memory:32M");
    EXPECT_EQ(options.codec, "zstd");
    EXPECT_EQ(options.engine, static_cast<std::uint32_t>(PN_ENGINE_THREAD));
    EXPECT_EQ(options.stats, "-");
    EXPECT_EQ(options.stats_every_ms, 250u);
    EXPECT_EQ(options.activation_bytes, 0u);
    EXPECT_TRUE(options.verbose && options.strict && options.stress);
    EXPECT_EQ(options.hide, static_cast<std::uint32_t>(Options::hide_userfaultfd));
}

TEST_F(Environment, EveryBadValueWarnsOnceAndKeepsTheDefault) {
    for (const OptionSpec& spec : option_table()) {
        std::vector<std::string> bad = test::bad_values(spec);
        bad.emplace_back("");
        for (const std::string& value : bad) {
            ::setenv(spec.environment, value.c_str(), 1);
            const Options options = read();
            EXPECT_THAT(warnings, ElementsAre(HasSubstr(option_range(spec))))
                << spec.environment << "=" << value;
            EXPECT_THAT(warnings, ElementsAre(HasSubstr(std::string(spec.environment) + "="))) << value;
            EXPECT_EQ(options.near_bytes_max, Options::defaults().near_bytes_max);
            EXPECT_EQ(options.codec, "lz4");
            EXPECT_EQ(options.hide, 0u);
        }
        ::unsetenv(spec.environment);
    }
}

TEST_F(Environment, AnUnknownVariableWarnsOnceAndTheRestHolds) {
    ::setenv("PNODE_NAER", "64M", 1);
    ::setenv("PNODE_CODEC", "zstd", 1);
    const Options options = read();
    EXPECT_THAT(warnings, ElementsAre(HasSubstr("PNODE_NAER")));
    EXPECT_EQ(options.codec, "zstd");
    ::unsetenv("PNODE_NAER");
    ::unsetenv("PNODE_CODEC");
}

TEST_F(Environment, VariablesOfOtherPartsAreKnown) {
    ::setenv("PNODE_LIBRARY", "/nowhere", 1);
    ::setenv("PNODE_SEED", "7", 1);
    read();
    EXPECT_THAT(warnings, IsEmpty());
    ::unsetenv("PNODE_LIBRARY");
    ::unsetenv("PNODE_SEED");
}

TEST_F(Environment, OfTwoEqualNamesTheFirstHolds) {
    char first[] = "PNODE_NEAR=64M";
    char second[] = "PNODE_NEAR=32M";
    char* twice[] = {first, second, nullptr};
    char** const before = environ;
    environ = twice;
    const Options options = read();
    environ = before;
    EXPECT_THAT(warnings, ElementsAre(HasSubstr("PNODE_NEAR is set twice")));
    EXPECT_EQ(options.near_bytes_max, std::uint64_t{64} << 20);
}

TEST_F(Environment, AnEntryWithoutAnEqualsSignIsAnEmptyValue) {
    char odd[] = "PNODE_NEAR";
    char* entries[] = {odd, nullptr};
    char** const before = environ;
    environ = entries;
    read();
    environ = before;
    EXPECT_THAT(warnings, ElementsAre(HasSubstr("empty")));
}

TEST_F(Environment, AWarningIsOneShortLineWhateverTheValue) {
    ::setenv("PNODE_CODEC", ("a\nb\x1b[31m" + std::string(100000, 'z')).c_str(), 1);
    read();
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_EQ(warnings[0].find_first_of("\n\x1b"), std::string::npos);
    EXPECT_LT(warnings[0].size(), 300u);
    ::unsetenv("PNODE_CODEC");
}

TEST_F(Environment, NobodyNeedsToListen) {
    ::setenv("PNODE_NEAR", "rubbish", 1);
    EXPECT_EQ(Options::from_environment(nullptr, nullptr).near_bytes_max, Options::defaults().near_bytes_max);
    ::unsetenv("PNODE_NEAR");
}

}  // namespace
}  // namespace pnode
