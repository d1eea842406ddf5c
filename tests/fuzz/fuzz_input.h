// An input's bytes, taken off the front as numbers; zeros when they are used up.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace pnode::fuzz {

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : bytes_(data, size) {}

    // As many bytes as it takes; evenly spread only for powers of 256.
    std::uint64_t below(std::uint64_t limit) {
        std::uint64_t value = 0;
        const std::size_t width = limit <= 256 ? 1 : limit <= 65536 ? 2 : 4;
        const std::size_t taken = std::min(width, bytes_.size());
        if (taken != 0) std::memcpy(&value, bytes_.data(), taken);
        bytes_ = bytes_.subspan(taken);
        return value % limit;
    }
    std::uint64_t next() { return below(std::uint64_t{1} << 32); }
    bool is_empty() const { return bytes_.empty(); }
    std::span<const std::uint8_t> rest() const { return bytes_; }
    std::string_view text() const { return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()}; }

  private:
    std::span<const std::uint8_t> bytes_;
};

// What must hold, whatever the input is.
inline void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
}

}  // namespace pnode::fuzz
