// Of the contract itself: a test for every row, and a negative control where the row could pass for no
// reason.
#include <gtest/gtest.h>

#include <cstdio>
#include <set>
#include <string>

namespace pnode::test {
namespace {

std::set<std::string> all_test_names() {
    std::set<std::string> names;
    const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
    for (int suite = 0; suite < all.total_test_suite_count(); ++suite) {
        const ::testing::TestSuite& tests = *all.GetTestSuite(suite);
        for (int test = 0; test < tests.total_test_count(); ++test)
            names.insert(tests.GetTestInfo(test)->name());
    }
    return names;
}

bool has_test(const std::set<std::string>& names, const std::string& prefix) {
    const auto found = names.lower_bound(prefix);
    return found != names.end() && found->starts_with(prefix);
}

TEST(ContractRows, EachHasATestOfItsName) {
    constexpr int rows = 36;
    const std::set<std::string> names = all_test_names();
    for (int row = 1; row <= rows; ++row) {
        char prefix[16];
        std::snprintf(prefix, sizeof prefix, "C%02d_", row);
        EXPECT_TRUE(has_test(names, prefix)) << prefix;
    }
}

// C18 and C19 are judged together with a careless implementation of the same interface, inside their tests.
TEST(ContractRows, WhatCouldPassForNoReasonIsSeenToFail) {
    const std::set<std::string> names = all_test_names();
    for (const char* row : {"C01", "C08", "C16"})
        EXPECT_TRUE(has_test(names, std::string(row) + "_NegativeControl_")) << row;
}

}  // namespace
}  // namespace pnode::test
