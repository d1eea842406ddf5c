// A tier is where the pages of one range go when they are demoted, with a way to send them there: a pnode
// heap or kernel zram.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "bench/common/anonymous_memory.h"
#include "bench/common/zram_swap.h"
#include "cxl/blob_store.h"
#include "pnode/pnode.h"

namespace pnode::bench {

inline constexpr std::size_t page_bytes = PN_PAGE_BYTES;

class Tier {
  public:
    virtual ~Tier() = default;
    Tier(const Tier&) = delete;
    Tier& operator=(const Tier&) = delete;

    virtual std::byte* memory() const = 0;
    // Any thread. Some pages may stay near: ask far_pages().
    virtual void demote(std::size_t first_page, std::size_t pages) = 0;
    // Numbers of the pages that are far now, ascending.
    virtual std::vector<std::size_t> far_pages() const = 0;

    virtual bool compresses() const { return true; }
    // Has a page that was only read something to leave by?
    virtual bool keeps_blobs() const { return true; }
    // Says nothing about pages in random order.
    virtual bool serves_runs_only() const { return false; }

    const std::string engine;  // "thread", "inline", "zram", "floor", "floor-thread", "floor-16"
    const std::string codec;

  protected:
    Tier(std::string engine_name, std::string codec_name)
        : engine(std::move(engine_name)), codec(std::move(codec_name)) {}
};

// A heap of its own with one buffer, no near limit: pages leave when they are told to.
class HeapTier final : public Tier {
  public:
    // Throws std::runtime_error with the library's own reason and cure.
    HeapTier(std::uint32_t engine, const std::string& codec, std::size_t pages);
    ~HeapTier() override;
    std::byte* memory() const override { return buffer_; }
    void demote(std::size_t first_page, std::size_t pages) override;
    std::vector<std::size_t> far_pages() const override;
    pn_stats_t stats() const;
    cxl::StoreCounters stored() const;

  private:
    pn_heap* heap_ = nullptr;
    std::byte* buffer_ = nullptr;
    std::size_t pages_;
};

class ZramTier final : public Tier {
  public:
    // `swap` must outlive the tier and be this machine's only one.
    ZramTier(const ZramSwap& swap, std::size_t pages);
    std::byte* memory() const override { return memory_.data(); }
    void demote(std::size_t first_page, std::size_t pages) override;
    std::vector<std::size_t> far_pages() const override;

  private:
    AnonymousMemory memory_;
    std::size_t pages_;
};

}  // namespace pnode::bench
