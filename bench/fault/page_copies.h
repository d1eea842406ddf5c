// A copy of each page of a range, as it is or compressed: what a floor's pages come from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/common/anonymous_memory.h"
#include "compress/codec.h"

namespace pnode::bench {

class PageCopies {
  public:
    static constexpr std::size_t page_bytes = 4096;

    // `codec`: "-" for pages as they are, or one of compress/codec.h that decodes without scratch. Throws
    // std::system_error.
    PageCopies(std::size_t pages, const std::string& codec);

    bool compresses() const noexcept { return codec_ != nullptr; }
    // What does not compress lies there as it is. One thread at a time for a page.
    void keep(std::size_t page, std::span<const std::byte, page_bytes> contents) noexcept;
    std::uint64_t bytes() const noexcept;
    // Where the page's contents are: the copy itself, or `decoded`. nullptr: the copy is no blob. Any thread,
    // and signal handlers; not while the page is kept.
    const std::byte* contents(std::size_t page, std::span<std::byte> decoded) const noexcept;

  private:
    AnonymousMemory copies_;
    const compress::Codec* codec_;           // nullptr: uncompressed
    std::vector<std::uint16_t> blob_bytes_;  // of each page's copy; 0: it is uncompressed
};

}  // namespace pnode::bench
