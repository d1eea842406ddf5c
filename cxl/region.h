// A region: the mapped bytes behind a node. `memory:SIZE` is a memfd; devdax and NUMA regions come behind the
// same interface.
//
// Thread rule: made and destroyed by one thread; bytes(), size_bytes() and discard() may be called by any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "cxl/unmanaged.h"

namespace pnode::cxl {

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

  protected:
    Region() = default;
    std::byte* bytes_ = nullptr;
    std::size_t size_bytes_ = 0;
};

// Opens what `spec` names: today "memory:SIZE" with SIZE as parse_size() takes it, rounded up to 4 KiB.
// 0 or an errno; on failure *out is untouched and `message` (may be null) has one line that names the cure.
//   EINVAL malformed, zero, negative, overflowing, not a known kind · ENOMEM larger than physical memory or
//   unmappable EMFILE no descriptor above 100 · EBUSY owned by somebody else
int open_region(const std::string& spec, std::unique_ptr<Region>* out, std::string* message);

// What "memory:" opens, without the comparison with physical memory: a sparse region may be larger. `bytes`
// is a multiple of 4 KiB.
int open_memory_region(std::uint64_t bytes, std::unique_ptr<Region>* out, std::string* message);

}  // namespace pnode::cxl
