// A private node: one region, its blob store, what it may be used for, how much of it, and the gate. Reached
// only through a handle to it.
//
// Thread rule: any thread at once, but for open and destruction; those that place, free or change limits take
// short spin locks, so callers block signals (blob_store.h). Nothing here calls a user with a lock held but
// node_changed().
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "cxl/blob_store.h"
#include "cxl/capacity_bound.h"
#include "cxl/region.h"
#include "cxl/simulated_device.h"
#include "cxl/spin_lock.h"

namespace pnode::cxl {

// Independent reasons why nothing new may be placed on a node; each owner sets and clears only its own
// (CONTRACT.md C18).
enum class GateReason : std::uint32_t {
    closed_by_user = 1,  // pressure at its maximum
    converging = 2,      // more is held than the ratio allows
    teardown = 4,        // being closed
    full = 8             // the device said so
};

class Gate {
  public:
    void shut(GateReason reason) noexcept { reasons_.fetch_or(bit(reason), std::memory_order_acq_rel); }
    void open(GateReason reason) noexcept { reasons_.fetch_and(~bit(reason), std::memory_order_acq_rel); }
    bool is_open() const noexcept { return reasons_.load(std::memory_order_acquire) == 0; }
    std::uint32_t reasons() const noexcept { return reasons_.load(std::memory_order_acquire); }
    bool is_shut_for(GateReason reason) const noexcept { return (reasons() & bit(reason)) != 0; }

  private:
    static constexpr std::uint32_t bit(GateReason reason) noexcept {
        return static_cast<std::uint32_t>(reason);
    }
    std::atomic<std::uint32_t> reasons_{0};
};

// What a node may be used for, chosen when it is opened and fixed from then on.
namespace service {
inline constexpr std::uint32_t demote = 1;      // heaps place cold pages on it
inline constexpr std::uint32_t direct = 2;      // buffers in place
inline constexpr std::uint32_t recompress = 4;  // blobs are made smaller in the background
inline constexpr std::uint32_t spill = 8;       // blobs go on to a file
inline constexpr std::uint32_t prefetch = 16;   // pages are brought near because somebody asked
inline constexpr std::uint32_t pin = 32;        // pages of its heaps may be pinned
inline constexpr std::uint32_t share = 64;      // several heaps at once
inline constexpr std::uint32_t all = 127;
inline constexpr std::uint32_t by_default = demote | recompress | prefetch | pin | share;
}  // namespace service

// nullptr, or why these services do not go together, on such a region.
const char* refuse_services(std::uint32_t services, bool compresses_inline) noexcept;

// A heap on the node. Called from any thread, node_changed() with the node's list locked: it only wakes.
class NodeUser {
  public:
    virtual void node_changed() noexcept = 0;

  protected:
    ~NodeUser() = default;
};

struct NodeCounters {
    std::atomic<std::uint64_t> placements{0};
    std::atomic<std::uint64_t> refused_gated{0};
    std::atomic<std::uint64_t> refused_full{0};
    std::atomic<std::uint64_t> refused_service{0};
    std::atomic<std::uint64_t> questions{0};  // put to the device
    std::atomic<std::uint64_t> answers_disbelieved{0};
    std::atomic<std::uint64_t> bad_ranges{0};
    std::atomic<std::uint64_t> direct_fallbacks{0};
    std::atomic<std::uint64_t> evacuated_pages{0};
    std::atomic<std::uint64_t> ladder_failures{0};
    std::atomic<std::uint64_t> events{0};
};

class Node final : public Unmanaged, private SimulatedDevice::Listener {
  public:
    static constexpr unsigned pressure_max = 1000;
    static constexpr unsigned users_max = 64;

    // 0 or an errno with one line in `message`, as open_region(). EINVAL also for a region too small to hold
    // a blob, and for services that do not go together.
    static int open(const std::string& spec, std::uint32_t services, std::unique_ptr<Node>* out,
                    std::string* message);
    static int open(const std::string& spec, std::unique_ptr<Node>* out, std::string* message) {
        return open(spec, service::by_default, out, message);
    }
    // Wipes what would stay behind, unless a forked child may still read it.
    ~Node();

    Region& region() noexcept { return *region_; }
    const Region& region() const noexcept { return *region_; }
    BlobStore& store() noexcept { return store_; }
    const BlobStore& store() const noexcept { return store_; }
    Gate& gate() noexcept { return gate_; }
    const Gate& gate() const noexcept { return gate_; }
    const std::string& spec() const noexcept { return spec_; }
    bool permits(std::uint32_t services) const noexcept { return (services_ & services) == services; }
    std::uint32_t services() const noexcept { return services_; }

    // Stores a blob. no_blob: the gate is shut, the service is not permitted, or the node is full.
    BlobRef place(std::span<const std::byte> blob) noexcept;
    // Stores a copy of the blob at `ref`, the slot's bytes, outside of sparse slabs (blob_store.h). no_blob:
    // there is no free slot, or the node's device compresses, and does not gain by it.
    BlobRef place_elsewhere(BlobRef ref, std::span<const std::byte> slot) noexcept;
    bool may_pack() const noexcept { return device_ == nullptr && gate_.is_open(); }
    // What a load found bad: nothing is placed there any more. In the parent only.
    void went_bad(const BadRange& bad) noexcept;

    // ---- how much of it ----
    // At most so many bytes (0: the region's size), whatever the rest says.
    void set_bytes_max(std::uint64_t bytes) noexcept;
    // 0 is none; in between less is placed, monotonically; at pressure_max nothing is. EINVAL above.
    int set_pressure(unsigned permille) noexcept;
    // The device compresses `current`, where `promised` was promised (any unit). The latest report holds.
    // EINVAL: promised is 0.
    int set_ratio(std::uint64_t current, std::uint64_t promised) noexcept;
    unsigned pressure() const noexcept { return pressure_.load(std::memory_order_relaxed); }
    std::uint64_t perceived_bytes() const noexcept;
    std::uint64_t effective_bytes() const noexcept { return effective_.load(std::memory_order_relaxed); }
    std::uint64_t placeable_bytes() const noexcept { return placeable_.load(std::memory_order_relaxed); }
    // What has to leave before the gate opens again.
    std::uint64_t excess_bytes() const noexcept;
    // After something left: opens the gate if nothing is in excess. Is it so?
    bool settle() noexcept;

    // ---- buffers in place ----
    // ENOSPC: full or gated, and `strict`; else the buffer is in DRAM. EPERM: not permitted.
    int take_direct(std::size_t bytes, bool strict, void** out) noexcept;
    // EINVAL: not one of them.
    int give_direct(void* address) noexcept;

    // ---- who uses it ----
    // EBUSY: somebody does, and it is not to be shared · ENFILE users_max do.
    int attach(NodeUser* user) noexcept;
    void detach(NodeUser* user) noexcept;
    unsigned users() const noexcept { return users_count_.load(std::memory_order_acquire); }
    unsigned copy_users(NodeUser** out) const noexcept;  // users_max at most

    // What to call when nothing more can leave and too much is held: once, until the node has settled again.
    // From a user's thread, no lock held. Before the node is used.
    using Failed = void (*)(void* context, std::uint64_t excess_bytes);
    void set_failed(Failed failed, void* context) noexcept {
        failed_ = failed;
        failed_context_ = context;
    }
    void tell_failure() noexcept;

    // Tells users and whoever waits at the eventfd that something changed.
    void notify() noexcept;
    // An eventfd of the node's, readable after every notify(); the same each time. -1 and errno.
    int event_descriptor() noexcept;

    NodeCounters counters;

    // For negative controls: place past the bound, as if there were none.
    void ignore_bound(bool ignore) noexcept { bound_ignored_.store(ignore, std::memory_order_relaxed); }

  private:
    struct Fallback {
        void* address;
        std::size_t bytes;
    };
    static constexpr unsigned fallbacks_max = 1024;

    Node(std::string spec, std::uint32_t services, std::unique_ptr<Region> region);
    void apply_limits() noexcept;
    bool admit(std::uint64_t worst_bytes) noexcept;
    BlobRef write_or_quarantine(BlobRef ref, std::span<const std::byte> blob) noexcept;
    void hear_bad_news() noexcept;
    int take_fallback(std::size_t bytes, void** out) noexcept;
    void capacity_low() noexcept override;
    void capacity_recovered() noexcept override;

    const std::string spec_;
    const std::uint32_t services_;
    std::unique_ptr<Region> region_;
    SimulatedDevice* const device_;  // null: the region is what it says
    BlobStore store_;
    Gate gate_;
    std::optional<CapacityBound> bound_;
    std::atomic<bool> bound_ignored_{false};

    // Written under limits_lock_, so that the latest report wins; read without.
    mutable SpinLock limits_lock_;
    std::uint64_t bytes_max_;
    std::uint64_t ratio_current_ = 1;
    std::uint64_t ratio_promised_ = 1;
    std::atomic<unsigned> pressure_{0};
    std::atomic<std::uint64_t> effective_;
    std::atomic<std::uint64_t> placeable_;

    mutable SpinLock users_lock_;
    std::array<NodeUser*, users_max> users_{};
    std::atomic<unsigned> users_count_{0};
    std::atomic<int> event_descriptor_{-1};

    Failed failed_ = nullptr;
    void* failed_context_ = nullptr;
    std::atomic<bool> failure_told_{false};

    SpinLock fallbacks_lock_;
    LazyArray<Fallback> fallbacks_;
};

}  // namespace pnode::cxl
