// A private node: one region, its capacity, its gate, its blob store. Reached only through a handle to it.
//
// Thread rule: the gate may be read and changed by any thread; the rest as BlobStore says.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "cxl/blob_store.h"
#include "cxl/region.h"

namespace pnode::cxl {

// Independent reasons why nothing new may be placed on a node; each owner sets and clears only its own
// (CONTRACT.md C18).
enum class GateReason : std::uint32_t { closed_by_user = 1, converging = 2, teardown = 4, full = 8 };

class Gate {
  public:
    void shut(GateReason reason) noexcept { reasons_.fetch_or(bit(reason), std::memory_order_acq_rel); }
    void open(GateReason reason) noexcept { reasons_.fetch_and(~bit(reason), std::memory_order_acq_rel); }
    bool is_open() const noexcept { return reasons_.load(std::memory_order_acquire) == 0; }
    std::uint32_t reasons() const noexcept { return reasons_.load(std::memory_order_acquire); }

  private:
    static constexpr std::uint32_t bit(GateReason reason) noexcept {
        return static_cast<std::uint32_t>(reason);
    }
    std::atomic<std::uint32_t> reasons_{0};
};

class Node : public Unmanaged {
  public:
    // 0 or an errno with one line in `message`, as open_region(). EINVAL also for a region too small to hold
    // a blob.
    static int open(const std::string& spec, std::unique_ptr<Node>* out, std::string* message);

    Region& region() noexcept { return *region_; }
    BlobStore& store() noexcept { return store_; }
    const BlobStore& store() const noexcept { return store_; }
    Gate& gate() noexcept { return gate_; }
    const std::string& spec() const noexcept { return spec_; }

    // no_blob while the gate is shut or the store is full.
    BlobRef place(std::size_t bytes) noexcept { return gate_.is_open() ? store_.allocate(bytes) : no_blob; }

    // How many heaps use the node; a node in use is not closed.
    std::atomic<int> users{0};

  private:
    Node(std::string spec, std::unique_ptr<Region> region);
    std::string spec_;
    std::unique_ptr<Region> region_;
    BlobStore store_;
    Gate gate_;
};

}  // namespace pnode::cxl
