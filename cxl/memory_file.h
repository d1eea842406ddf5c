// A memfd, mapped shared: the bytes of a `memory:` region, of one on a NUMA node, and behind a simulated
// device's window. Nobody can truncate it under us, and it is in no core dump.
//
// Thread rule: made and destroyed by one thread.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace pnode::cxl {

inline constexpr int region_descriptor_min = 101;  // programs own the low numbers

// Stores `text` in `message`, when there is one, and returns `error`: how opening a region fails.
int fail(int error, std::string* message, const std::string& text);

// As `descriptor`, above 100 and close-on-exec; -1 and errno. `descriptor` is closed in either case.
int move_above_100(int descriptor);

class OwnedDescriptor {
  public:
    OwnedDescriptor() = default;
    explicit OwnedDescriptor(int descriptor) : descriptor_(descriptor) {}
    OwnedDescriptor(OwnedDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
    OwnedDescriptor& operator=(OwnedDescriptor&& other) noexcept {
        std::swap(descriptor_, other.descriptor_);
        return *this;
    }
    ~OwnedDescriptor() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
    int get() const noexcept { return descriptor_; }

  private:
    int descriptor_ = -1;
};

class MemoryFile {
  public:
    MemoryFile() = default;
    ~MemoryFile();
    MemoryFile(MemoryFile&& other) noexcept;
    MemoryFile& operator=(MemoryFile&&) = delete;

    // 0 or an errno with one line in `message`. `bytes` is a multiple of 4 KiB; nothing is reserved.
    int open(std::uint64_t bytes, std::string* message);
    // Gives the pages back: they read as zeros. 0 or an errno.
    int punch(std::size_t offset, std::size_t length) const noexcept;

    std::byte* bytes() const noexcept { return bytes_; }
    std::size_t size_bytes() const noexcept { return size_bytes_; }
    int descriptor() const noexcept { return descriptor_.get(); }

  private:
    OwnedDescriptor descriptor_;
    std::byte* bytes_ = nullptr;
    std::size_t size_bytes_ = 0;
};

// FALLOC_FL_PUNCH_HOLE, again when a signal interrupts it. 0 or an errno.
int punch_hole(int descriptor, std::size_t offset, std::size_t length) noexcept;

}  // namespace pnode::cxl
