// How many pages each block still has: words that name its blob, whether far or near with the blob kept. A
// block's blob, and its reference to a dictionary, go with the last of them.
//
// In private memory and keyed by the blob's place, one byte for each KiB of the store: blobs of blocks are at
// least that large, so no two share a byte. A forked child has its own copy, for the blobs of its parent that
// it inherited; blocks of its own it makes none.
//
// Thread rule: begin() by who places the blob, before any word names it; move() by who owns all pages whose
// words do; drop() and lose() by the owner of a
// page whose word does, once; any thread, any context.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cxl/blob_store.h"
#include "runtime/os/memory.h"

namespace pnode {

class BlockCounts {
  public:
    static constexpr std::size_t blob_bytes_min = 1024;
    enum class Left : std::uint8_t { some, none, none_but_lost };

    int map(std::size_t region_bytes) noexcept {
        return memory_.map((region_bytes / blob_bytes_min + 4096) / 4096 * 4096);
    }
    bool is_mapped() const noexcept { return memory_.address() != nullptr; }
    // No word names a block.
    void forget() noexcept {
        if (is_mapped()) ::madvise(memory_.address(), memory_.bytes(), MADV_DONTNEED);
        blocks_[0].store(0, std::memory_order_relaxed);
        blocks_[1].store(0, std::memory_order_relaxed);
    }

    void begin(cxl::BlobRef ref, unsigned pages) noexcept {
        at(ref).store(static_cast<std::uint8_t>(pages), std::memory_order_relaxed);
        blocks(pages).fetch_add(1, std::memory_order_relaxed);
    }
    // A word names it no more. none: the caller frees what the block had. none_but_lost: a page of it was
    // lost, and nothing else shall be stored in those bytes.
    Left drop(cxl::BlobRef ref, unsigned pages) noexcept {
        const std::uint8_t before = at(ref).fetch_sub(1, std::memory_order_acq_rel);
        if ((before & alive_mask) != 1) return Left::some;
        blocks(pages).fetch_sub(1, std::memory_order_relaxed);
        return (before & lost_bit) != 0 ? Left::none_but_lost : Left::none;
    }
    // The block's blob lies elsewhere, for all that name it. False: a page of it was lost.
    bool move(cxl::BlobRef from, cxl::BlobRef to) noexcept {
        const std::uint8_t pages = at(from).load(std::memory_order_relaxed);
        if ((pages & lost_bit) != 0) return false;
        at(to).store(pages, std::memory_order_relaxed);
        at(from).store(0, std::memory_order_relaxed);
        return true;
    }
    Left lose(cxl::BlobRef ref, unsigned pages) noexcept {
        at(ref).fetch_or(lost_bit, std::memory_order_relaxed);
        return drop(ref, pages);
    }
    unsigned alive(cxl::BlobRef ref) const noexcept {
        return at(ref).load(std::memory_order_relaxed) & alive_mask;
    }
    std::uint64_t count(unsigned pages) const noexcept {
        return blocks_[pages == 16 ? 1 : 0].load(std::memory_order_relaxed);
    }

  private:
    static constexpr std::uint8_t alive_mask = 0x1f, lost_bit = 0x80;
    std::atomic<std::uint8_t>& at(cxl::BlobRef ref) const noexcept {
        constexpr std::uint64_t units = blob_bytes_min / 16;
        return reinterpret_cast<std::atomic<std::uint8_t>*>(memory_.address())[(ref - 1) / units];
    }
    std::atomic<std::uint64_t>& blocks(unsigned pages) noexcept { return blocks_[pages == 16 ? 1 : 0]; }

    os::Mapping memory_;
    std::atomic<std::uint64_t> blocks_[2] = {};  // of 4 and of 16 pages
};

}  // namespace pnode
