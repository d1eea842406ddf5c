// What the kernel was told about a page of the heap beside its contents: one byte a page.
//
//     bits 0..2  protection, as PROT_ bits, exclusive-or read|write: a zero byte is ordinary memory
//     bit  3     reserved: never accessible since it was allocated, so it holds nothing and is not charged
//     bits 5..7  the buffer's own codec by its number (buffer_codecs.h); 0: the heap's
//     bit  4     handed out: something else is mapped there (a file, shared memory), or somebody else watches
//     it
//                (a userfaultfd of the program's own); not ours to touch
//
// Traits say nothing about who owns a page: a free page may still be inaccessible, so that a stray access to
// what was unmapped ends as it would have without us. Whoever allocates it makes it ordinary again.
//
// Thread rule: written under the heap's span lock, handed_out also while its chunk is claimed or tracked
// (chunk_table.h), and there by the owner of the busy page; anybody may read. Who reads what another thread
// wrote sees what that thread did before (inline_engine.cpp wants that). The table is lazily backed and
// private: fork snapshots it.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "runtime/os/memory.h"

namespace pnode {

class PageTraits {
  public:
    static constexpr std::uint8_t reserved = 1 << 3;
    static constexpr std::uint8_t handed_out = 1 << 4;
    static constexpr std::uint8_t codec_mask = 7 << 5;
    static constexpr std::uint8_t ordinary = 0;

    static constexpr std::uint8_t of_codec(unsigned number) { return static_cast<std::uint8_t>(number << 5); }
    static constexpr unsigned codec_of(std::uint8_t traits) { return traits >> 5; }

    static constexpr std::uint8_t of_protection(int protection) {
        return static_cast<std::uint8_t>((protection & 7) ^ (PROT_READ | PROT_WRITE));
    }
    static constexpr int protection_of(std::uint8_t traits) {
        return (traits & 7) ^ (PROT_READ | PROT_WRITE);
    }

    int init(std::uint64_t pages) noexcept {
        if (int error = memory_.map((pages + 4095) & ~std::uint64_t{4095})) return error;
        traits_ = reinterpret_cast<std::atomic<std::uint8_t>*>(memory_.address());
        return 0;
    }

    // False: every page of the heap is ordinary, and nobody needs to look.
    bool any() const noexcept { return ever_set_.load(std::memory_order_relaxed); }

    std::uint8_t operator[](std::uint64_t page) const noexcept {
        return traits_[page].load(std::memory_order_acquire);
    }

    // Replaces the bits of `mask`.
    void set(std::uint64_t first, std::uint64_t pages, std::uint8_t mask, std::uint8_t bits) noexcept {
        if (bits == 0 && !any()) return;
        ever_set_.store(true, std::memory_order_relaxed);
        for (std::uint64_t page = first; page < first + pages; ++page) {
            const std::uint8_t before = traits_[page].load(std::memory_order_relaxed);
            const auto after = static_cast<std::uint8_t>((before & ~mask) | bits);
            // An untouched page of the table stays untouched.
            if (after != before) traits_[page].store(after, std::memory_order_release);
        }
    }

    // Pages from `first` on, at most `pages`, whose bits in `mask` are those of `first`.
    std::uint64_t run(std::uint64_t first, std::uint64_t pages, std::uint8_t mask) const noexcept {
        if (!any()) return pages;
        const auto bits = static_cast<std::uint8_t>((*this)[first] & mask);
        std::uint64_t length = 1;
        while (length < pages && ((*this)[first + length] & mask) == bits) ++length;
        return length;
    }

    // visit(first, pages) for each run whose bits in `mask` are `bits`.
    template <class Visit>
    void for_each(std::uint64_t first, std::uint64_t pages, std::uint8_t mask, std::uint8_t bits,
                  Visit visit) const {
        // The table stays untouched, of which even a look may cost a page: a kernel may have none of zeros to
        // share.
        if (!any()) {
            if (pages != 0 && bits == ordinary) visit(first, pages);
            return;
        }
        while (pages != 0) {
            const std::uint64_t length = run(first, pages, mask);
            if (((*this)[first] & mask) == bits) visit(first, length);
            first += length;
            pages -= length;
        }
    }

  private:
    std::atomic<std::uint8_t>* traits_ = nullptr;
    std::atomic<bool> ever_set_{false};
    os::Mapping memory_;
};

}  // namespace pnode
