#include "cxl/node.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

namespace pnode::cxl {
namespace {

constexpr std::array reasons = {GateReason::closed_by_user, GateReason::converging, GateReason::teardown,
                                GateReason::full};

std::uint32_t bit(GateReason reason) {
    return static_cast<std::uint32_t>(reason);
}

const std::vector<std::byte> blob(1000, std::byte{9});

std::unique_ptr<Node> open_node(const std::string& spec) {
    std::unique_ptr<Node> node;
    std::string message;
    EXPECT_EQ(Node::open(spec, &node, &message), 0) << message;
    return node;
}

// Every set of reasons, cleared in every order: the gate is open when and only when all are cleared.
TEST(Gate, is_the_or_of_reasons_in_every_combination_and_order) {
    for (std::uint32_t shut = 0; shut < 16; ++shut) {
        std::array<unsigned, 4> order = {0, 1, 2, 3};
        do {
            Gate gate;
            for (const GateReason reason : reasons) {
                if ((shut & bit(reason)) != 0) gate.shut(reason);
            }
            std::uint32_t left = shut;
            for (const unsigned which : order) {
                ASSERT_EQ(gate.reasons(), left);
                ASSERT_EQ(gate.is_open(), left == 0);
                gate.open(reasons[which]);
                left &= ~bit(reasons[which]);
            }
            ASSERT_TRUE(gate.is_open());
        } while (std::next_permutation(order.begin(), order.end()));
    }
}

TEST(Gate, shut_twice_by_one_owner_opens_at_once) {
    Gate gate;
    gate.shut(GateReason::full);
    gate.shut(GateReason::full);
    gate.open(GateReason::full);
    EXPECT_TRUE(gate.is_open());
}

TEST(Node, places_only_while_its_gate_is_open_and_keeps_its_residents) {
    const auto node = open_node("memory:1M");
    EXPECT_EQ(node->spec(), "memory:1M");
    EXPECT_EQ(node->users(), 0u);
    const BlobRef resident = node->place(blob);
    ASSERT_NE(resident, no_blob);
    for (const GateReason reason : reasons) {
        node->gate().shut(reason);
        EXPECT_EQ(node->place(blob), no_blob);
        EXPECT_EQ(node->store().bytes(resident)[0], std::byte{9});
        node->gate().open(reason);
        EXPECT_NE(node->place(blob), no_blob);
    }
    EXPECT_EQ(node->store().counters().blobs, 5u);
    EXPECT_STREQ(node->store().validate(), nullptr);
}

TEST(Node, places_nothing_when_full) {
    const auto node = open_node("memory:64K");
    std::size_t placed = 0;
    while (node->place(blob) != no_blob) ASSERT_LT(++placed, 1000u);
    EXPECT_GT(placed, 50u);
    EXPECT_TRUE(node->gate().is_open());
}

TEST(Node, too_small_to_hold_a_blob_is_refused) {
    std::unique_ptr<Node> node;
    std::string message;
    EXPECT_EQ(Node::open("memory:4K", &node, &message), EINVAL);
    EXPECT_NE(message.find("at least 64.0 KiB"), std::string::npos) << message;
    EXPECT_EQ(Node::open("memory:4K", &node, nullptr), EINVAL);
    EXPECT_EQ(node, nullptr);
}

TEST(Node, passes_on_what_the_region_says) {
    std::unique_ptr<Node> node;
    std::string message;
    EXPECT_EQ(Node::open("floppy:1M", &node, &message), EINVAL);
    EXPECT_NE(message.find("memory:SIZE"), std::string::npos) << message;
    EXPECT_EQ(node, nullptr);
}

}  // namespace
}  // namespace pnode::cxl
