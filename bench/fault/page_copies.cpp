#include "bench/fault/page_copies.h"

#include <string.h>

#include <cerrno>
#include <system_error>

namespace pnode::bench {
namespace {

constexpr std::size_t scratch_bytes_max = 32 << 10;

}  // namespace

PageCopies::PageCopies(std::size_t pages, const std::string& codec)
    : copies_(pages * page_bytes), codec_(compress::codec_by_name(codec)), blob_bytes_(pages) {
    if (codec_ != nullptr && codec_->scratch_bytes(codec_->level_default) > scratch_bytes_max)
        throw std::system_error(EINVAL, std::generic_category(), "a codec with so much scratch");
}

void PageCopies::keep(std::size_t page, std::span<const std::byte, page_bytes> contents) noexcept {
    alignas(compress::scratch_alignment) thread_local std::byte scratch[scratch_bytes_max];
    const std::span<std::byte> copy(copies_.data() + page * page_bytes, page_bytes);
    std::size_t bytes = 0;
    if (codec_ != nullptr)
        bytes = codec_->compress(contents, copy.first(page_bytes - 1), codec_->level_default,
                                 std::span<std::byte>(scratch, sizeof scratch));
    if (bytes == 0) memcpy(copy.data(), contents.data(), page_bytes);
    blob_bytes_[page] = static_cast<std::uint16_t>(bytes);
}

std::uint64_t PageCopies::bytes() const noexcept {
    std::uint64_t all = 0;
    for (const std::uint16_t blob_bytes : blob_bytes_) all += blob_bytes == 0 ? page_bytes : blob_bytes;
    return all;
}

const std::byte* PageCopies::contents(std::size_t page, std::span<std::byte> decoded) const noexcept {
    std::byte* const copy = copies_.data() + page * page_bytes;
    const std::uint16_t bytes = blob_bytes_[page];
    if (bytes == 0) return copy;
    return codec_->decompress(std::span(copy, bytes), decoded, {}) ? decoded.data() : nullptr;
}

}  // namespace pnode::bench
