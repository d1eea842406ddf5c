// A region: the mapped bytes behind a node. Each kind (region_spec.h) is in the file named after it.
//
// Thread rule: made and destroyed by one thread; everything else may be called by any thread. store(),
// clear() and load() want SIGBUS open (guarded.h).
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "cxl/bad_news.h"
#include "cxl/guarded.h"
#include "cxl/region_spec.h"
#include "cxl/unmanaged.h"

namespace pnode::cxl {

class SimulatedDevice;

class Region : public Unmanaged {
  public:
    virtual ~Region() = default;
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;

    std::byte* bytes() const noexcept { return bytes_; }
    std::size_t size_bytes() const noexcept { return size_bytes_; }
    virtual const char* kind() const noexcept = 0;
    virtual int descriptor() const noexcept = 0;  // the region's; not to be closed. -1 when it has none

    // Gives [offset, offset + length) back to where it came from; it reads as zeros afterwards. Both are
    // multiples of 4 KiB. 0 or an errno; after an error the bytes are unspecified but usable.
    virtual int discard(std::size_t offset, std::size_t length) noexcept = 0;

    // Every store into the region but those of a direct buffer's owner. False: a line of it is bad.
    virtual bool store(std::size_t offset, std::span<const std::byte> bytes) noexcept;
    virtual bool clear(std::size_t offset, std::size_t length) noexcept;

    // Runs a body that loads from the region (guarded.h says what it may do). False: a line of it is bad,
    // told in `bad`.
    template <class Body>
    bool load(const Body& body, BadRange* bad) const noexcept {
        if (can_go_bad_) return guarded(body, bad);
        body();
        return true;
    }
    bool can_go_bad() const noexcept { return can_go_bad_; }
    // What went bad without being loaded; false: nothing more (bad_news.h).
    bool next_bad_news(BadRange* bad) noexcept { return bad_news_.next(bad); }

    // The bytes are still there when nobody has the region: whoever closes it wipes it first.
    bool outlives_owner() const noexcept { return outlives_owner_; }
    // Memory of its own, not the machine's that near pages are in: what lies here takes nothing from them.
    bool is_memory_apart() const noexcept { return is_memory_apart_; }
    // A forked child has the region of its parent, and is not to change it.
    bool is_owner() const noexcept { return owner_ == ::getpid(); }

    // What its owner should know: why "auto" chose it, who else may use it. "" for nothing.
    const std::string& notice() const noexcept { return notice_; }
    void set_notice(std::string notice) { notice_ = std::move(notice); }

    // The device that compresses what is stored; null for a region that is what it says.
    virtual SimulatedDevice* device() noexcept { return nullptr; }

  protected:
    Region() = default;
    // Once bytes_ and size_bytes_ are set. SIGBUS is taken (install_guard).
    void may_go_bad() noexcept {
        can_go_bad_ = true;
        bad_news_.watch(bytes_, size_bytes_);
    }
    std::byte* bytes_ = nullptr;
    std::size_t size_bytes_ = 0;
    bool outlives_owner_ = false;
    bool is_memory_apart_ = false;

  private:
    const pid_t owner_ = ::getpid();
    bool can_go_bad_ = false;
    BadNews bad_news_;
    std::string notice_;
};

// Opens what `spec` names (region_spec.h), sizes rounded up to 4 KiB.
// 0 or an errno; on failure *out is untouched and `message` (may be null) has one line that names the cure.
//   EINVAL malformed, off alignment, out of the device's range, a node with CPUs · ENOENT ENODEV no such
//   device or node · EACCES EPERM no right to it · EBUSY owned by somebody else · ENOMEM larger than physical
//   memory or unmappable · ENOSPC the NUMA node or the file system has not that much · EMFILE no descriptor
//   above 100 · EIO the device loses what is written
int open_region(const std::string& spec, std::unique_ptr<Region>* out, std::string* message);

// What "memory:" opens, without the comparison with physical memory: a sparse region may be larger. `bytes`
// is a multiple of 4 KiB.
int open_memory_region(std::uint64_t bytes, std::unique_ptr<Region>* out, std::string* message);

// The other kinds; `spec` is parsed.
int open_dax_region(const RegionSpec& spec, std::unique_ptr<Region>* out, std::string* message);
int open_numa_region(const RegionSpec& spec, std::unique_ptr<Region>* out, std::string* message);
int open_simulated_region(const RegionSpec& spec, std::unique_ptr<Region>* out, std::string* message);

}  // namespace pnode::cxl
