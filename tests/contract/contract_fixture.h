// The private node contract, a test per row, named after it (docs/private-node.md). Most of it is said with
// the public API alone; where a row is about what no caller can see, the test looks behind the handles.
#pragma once

#include <gtest/gtest.h>
#include <pnode/pnode.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "runtime/handles.h"
#include "tests/runtime/heap_fixture.h"
#include "tests/shm_device.h"

namespace pnode::test {

// On memory that is not this machine's DRAM, if PNODE_TEST_NODES names such: each "memory:NM" of the tests is
// then so much of the NUMA node (numa:2), or the first range of the device (dax:/dev/dax0.0) that nobody has.
inline int open_elsewhere(const std::string& where, const std::string& size, const pn_node_options& options,
                          pn_node** out) {
    if (where.starts_with("numa:")) return pn_node_open((where + ":" + size).c_str(), &options, out);
    const std::uint64_t bytes = std::stoull(size) * mib;
    for (std::uint64_t offset = 0;; offset += bytes) {
        const std::string range = where + ":" + std::to_string(offset) + "+" + size;
        const int error = pn_node_open(range.c_str(), &options, out);
        if (error != EBUSY) return error;
    }
}

inline pn_node* open_node(const std::string& spec, std::uint32_t services = PN_NODE_DEFAULT) {
    pn_node_options options;
    pn_node_options_init(&options);
    options.services = services;
    pn_node* node = nullptr;
    const std::string memory = "memory:";
    const char* const elsewhere = spec.starts_with(memory) ? std::getenv("PNODE_TEST_NODES") : nullptr;
    const int error = elsewhere != nullptr
                          ? open_elsewhere(elsewhere, spec.substr(memory.size()), options, &node)
                          : pn_node_open(spec.c_str(), &options, &node);
    EXPECT_EQ(error, 0) << spec << ": " << pn_last_message();
    return node;
}

inline pn_node_stats_t node_stats(pn_node* node) {
    pn_node_stats_t stats = {};
    stats.struct_bytes = sizeof stats;
    stats.version = PN_VERSION;
    EXPECT_EQ(pn_node_stats(node, &stats), 0);
    return stats;
}

// What does not hold among the figures of a node, or nothing.
inline std::string broken_sum(const pn_node_stats_t& s) {
    if (s.blob_bytes + s.direct_bytes > s.used_bytes) return "blobs + direct > used";
    if (s.placeable_bytes > s.effective_bytes) return "placeable > effective";
    if (s.effective_bytes > s.size_bytes) return "effective > size";
    if (s.device_used_bytes > s.device_bytes) return "the device uses more than it has";
    if (s.used_bytes > s.size_bytes) return "used > size";
    return "";
}

inline bool is_in_region(pn_node* node, const void* address) {
    const cxl::Region& region = node->node->region();
    const auto* const at = static_cast<const std::byte*>(address);
    return at >= region.bytes() && at < region.bytes() + region.size_bytes();
}

// A number of /proc/self/status, in bytes.
inline std::uint64_t status_bytes(const std::string& name) {
    std::ifstream status("/proc/self/status");
    std::string word;
    std::uint64_t kib_found = 0;
    while (status >> word) {
        if (word == name + ":" && status >> kib_found) return kib_found * 1024;
    }
    return 0;
}

class Contract : public HeapTest {
  protected:
    void TearDown() override {
        if (loses_pages_) {
            pn_heap_close(std::exchange(heap_, nullptr));  // the sums do not hold
        } else {
            HeapTest::TearDown();
            heap_ = nullptr;
        }
        for (pn_node* node : nodes_) EXPECT_EQ(pn_node_close(node), 0) << pn_last_message();
    }
    // Closed with the test.
    pn_node* node(const std::string& spec, std::uint32_t services = PN_NODE_DEFAULT) {
        nodes_.push_back(open_node(spec, services));
        return nodes_.back();
    }
    // The test closes it itself.
    void forget(pn_node* node) { std::erase(nodes_, node); }
    void open_heap_on(pn_node* node, std::uint64_t near_bytes_max = 0) {
        options_.node = node;
        options_.node_spec = nullptr;
        options_.near_bytes_max = near_bytes_max;
        open_heap();
    }
    Heap& inside() { return heap_->heap; }

    bool loses_pages_ = false;

  private:
    std::vector<pn_node*> nodes_;
};

}  // namespace pnode::test
