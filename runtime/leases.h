// Leases: what a process owes to forked children that may still read blobs it had at fork.
//
// Each fork makes a pipe whose write end only the child and its descendants keep; when the read end says
// hang-up the last of them has exited or exec'd, and the blobs the lease covered may go. A lease that cannot
// be recorded lasts for ever: frees are then deferred for ever, no byte is wrong.
//
// Thread rule: prepare/parent/child by the forking thread with the gates shut; expire() by the evictor or
// under the operations gate.
#pragma once

#include <atomic>
#include <cstdint>

#include "cxl/blob_store.h"

namespace pnode {

class Leases {
  public:
    static constexpr unsigned leases_max = 256;

    // The store is locked over the fork: the forking thread unlocks it in the parent, and the child's copy is
    // only read.
    void prepare(cxl::BlobStore& store) noexcept;
    void parent() noexcept;
    // The child keeps the write end (and its ancestors'), and owes nothing itself yet.
    void child() noexcept;
    // Ends what has ended; how many leases are left.
    unsigned expire(cxl::BlobStore& store) noexcept;
    // By any thread.
    unsigned count() const noexcept { return count_.load() + permanent_.load(); }
    void close() noexcept;

  private:
    int read_ends_[leases_max];
    // Changed inside the operations gate or by who has shut it.
    std::atomic<unsigned> count_{0};
    std::atomic<unsigned> permanent_{0};
    int new_read_end_ = -1;
    int new_write_end_ = -1;
};

}  // namespace pnode
