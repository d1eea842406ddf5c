// memory:SIZE, the embedded default: DRAM of this process, given back page by page.

#include <sys/mman.h>

#include "cxl/memory_file.h"
#include "cxl/region.h"

namespace pnode::cxl {

namespace {

class MemoryRegion final : public Region {
  public:
    explicit MemoryRegion(MemoryFile&& file) : file_(std::move(file)) {
        bytes_ = file_.bytes();
        size_bytes_ = file_.size_bytes();
        // A huge page would hold more than the slabs that are accounted.
        (void)madvise(bytes_, size_bytes_, MADV_NOHUGEPAGE);
    }

    const char* kind() const noexcept override { return "memory"; }
    int descriptor() const noexcept override { return file_.descriptor(); }
    int discard(std::size_t offset, std::size_t length) noexcept override {
        return file_.punch(offset, length);
    }

  private:
    MemoryFile file_;
};

}  // namespace

int open_memory_region(std::uint64_t bytes, std::unique_ptr<Region>* out, std::string* message) {
    MemoryFile file;
    if (const int error = file.open(bytes, message)) return error;
    out->reset(new MemoryRegion(std::move(file)));
    return 0;
}

}  // namespace pnode::cxl
