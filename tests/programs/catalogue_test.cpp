#include "tools/demo/catalogue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace pnode::demo {
namespace {

std::vector<std::string> keys(const std::vector<Record>& records) {
    std::vector<std::string> out;
    for (const Record& record : records) out.push_back(record.key);
    return out;
}

TEST(CatalogueParser, KeepsEachStanzaByteForByte) {
    const std::string first = "Package: a\nVersion: 1\nTag: x,\n Package: not a field\n";
    const std::string second = "Version: 2\nPackage: b\nDescription: caf\xc3\xa9\n";
    const auto records = parse_catalogue(first + "\n" + second + "\n");
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[0].key, "a");
    EXPECT_EQ(records[0].value, first);
    EXPECT_EQ(records[1].key, "b");
    EXPECT_EQ(records[1].value, second);
}

TEST(CatalogueParser, KeepsLastStanzaWithoutNewline) {
    const auto records = parse_catalogue("Package: a\n\nPackage: b\nVersion: 2");
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[1].value, "Package: b\nVersion: 2");
}

TEST(CatalogueParser, GivesLaterStanzasOfOneNameKeysOfTheirOwn) {
    const std::string text =
        "Package: a\nVersion: 1\n\nPackage: a\nVersion: 2\n\nPackage: a\nVersion: 2\n\nPackage: a\nVersion: "
        "2\n\nPackage: a\n";
    EXPECT_THAT(keys(parse_catalogue(text)), testing::ElementsAre("a", "a=2", "a=2#2", "a=2#3", "a="));
}

TEST(CatalogueParser, SkipsWhatIsNoPackage) {
    EXPECT_TRUE(parse_catalogue("").empty());
    EXPECT_TRUE(parse_catalogue("\n\n\n").empty());
    EXPECT_TRUE(parse_catalogue("Package:\n").empty());
    EXPECT_THAT(keys(parse_catalogue("\n\n\nVersion: 1\n\n\n\nPackages: x\n\nPackage: a\n\n\n")),
                testing::ElementsAre("a"));
}

TEST(SyntheticCatalogue, HasTheShapeOfTheRealOne) {
    const auto records = synthetic_catalogue(2000, 7);
    ASSERT_EQ(records.size(), 2000u);
    std::string text;
    for (const Record& record : records) text += record.value + "\n";
    const auto parsed = parse_catalogue(text);
    EXPECT_EQ(keys(parsed), keys(records));
    const std::uint64_t mean = dataset_bytes(records) / records.size();
    EXPECT_GT(mean, 500u);  // Debian's is about 800
    EXPECT_LT(mean, 1100u);
}

TEST(SyntheticCatalogue, IsTheSameForTheSameSeed) {
    EXPECT_EQ(synthetic_catalogue(20, 3)[19].value, synthetic_catalogue(20, 3)[19].value);
    EXPECT_NE(synthetic_catalogue(20, 3)[19].value, synthetic_catalogue(20, 4)[19].value);
}

TEST(CatalogueReading, TakesWhatTheCommandPrints) {
    const Catalogue catalogue =
        read_catalogue("printf 'Package: a\\n\\nPackage: b\\n\\nPackage: c\\n'", 2, 1);
    EXPECT_THAT(keys(catalogue.records), testing::ElementsAre("a", "b"));
    EXPECT_EQ(catalogue.remark, "");
}

TEST(CatalogueReading, FallsBackAndNamesTheCureWhenThereIsNothing) {
    const Catalogue empty = read_catalogue("true", 10, 1);
    EXPECT_EQ(empty.records.size(), 10u);
    EXPECT_THAT(empty.remark,
                testing::AllOf(testing::HasSubstr("empty"), testing::HasSubstr("apt-get update")));
    const Catalogue failed = read_catalogue("printf 'Package: cut off'; exit 3", 10, 1);
    EXPECT_EQ(failed.records.size(), 10u);
    EXPECT_THAT(failed.remark,
                testing::AllOf(testing::HasSubstr("failed"), testing::HasSubstr("apt-get update")));
}

}  // namespace
}  // namespace pnode::demo
