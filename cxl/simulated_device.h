// A simulated memory device that compresses inline, behind `sim:`: a window that promises more than there is.
//
// What is stored into a window page is compressed by the device itself (with LZ4, so that the data decide)
// and takes that much of its physical bytes. At the limit it does what such a device does: the store is
// dropped, the page is poisoned, and whoever loads from it gets SIGBUS. It raises its capacity events late,
// answers for its capacity late or wrongly, and may refuse to trim. Its load side is ordinary memory: the
// bytes are in a memfd, a poisoned page is one mapped over by an empty file.
//
// Thread rule: any thread; one lock, held while a page is compressed. The behaviour may be changed at any
// time.
#pragma once

#include <lz4.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "cxl/memory_file.h"
#include "cxl/region.h"
#include "cxl/spin_lock.h"
#include "cxl/unmanaged.h"

namespace pnode::cxl {

class SimulatedDevice final : public Region {
  public:
    struct Capacity {
        std::uint64_t used_bytes;
        std::uint64_t total_bytes;
    };
    // Called by whoever's store or clear crossed the line, no lock held.
    class Listener {
      public:
        virtual void capacity_low() noexcept = 0;        // over 7/8 are used
        virtual void capacity_recovered() noexcept = 0;  // less than 3/4 are again
      protected:
        ~Listener() = default;
    };
    // How badly it behaves.
    struct Behaviour {
        std::atomic<unsigned> event_delay_stores{16};
        std::atomic<unsigned> answer_delay_yields{0};  // an answer is as old as its question, at most
        std::atomic<unsigned> answer_permille{1000};   // of the truth
        std::atomic<unsigned> trim_refusals{0};        // the next so many trims say EAGAIN or EBUSY in turn
    };

    static constexpr unsigned trim_retries_max = 8;

    SimulatedDevice(MemoryFile&& window, OwnedDescriptor&& hole, std::uint64_t physical_bytes);

    const char* kind() const noexcept override { return "sim"; }
    int descriptor() const noexcept override { return window_.descriptor(); }
    SimulatedDevice* device() noexcept override { return this; }
    // Dropped at the limit, without a word: the page is poisoned. Clearing never costs more than what was
    // there.
    bool store(std::size_t offset, std::span<const std::byte> bytes) noexcept override;
    bool clear(std::size_t offset, std::size_t length) noexcept override;
    // Trims, up to trim_retries_max times; then clears.
    int discard(std::size_t offset, std::size_t length) noexcept override;

    // What a placement of such a size may cost at most: the window pages it touches, whole.
    static std::uint64_t worst_bytes(std::size_t bytes) noexcept {
        return (bytes / page_bytes + 2) * page_bytes;
    }
    Capacity capacity() noexcept;
    // 0, EAGAIN or EBUSY, for the whole range.
    int trim(std::size_t offset, std::size_t length) noexcept;
    void set_listener(Listener* listener) noexcept { listener_.store(listener, std::memory_order_release); }

    Behaviour behaviour;
    // The truth, for tests.
    std::uint64_t used_bytes() const noexcept { return used_bytes_.load(std::memory_order_relaxed); }
    std::uint64_t poisoned_pages() const noexcept { return poisoned_pages_.load(std::memory_order_relaxed); }
    std::uint64_t trim_retries() const noexcept { return trim_retries_.load(std::memory_order_relaxed); }
    std::uint64_t physical_bytes() const noexcept { return physical_bytes_; }

  private:
    static constexpr std::size_t page_bytes = 4096;
    static constexpr std::uint16_t poisoned = 0xffff;  // in cost_

    void change_page(std::size_t page, std::size_t from, std::size_t length,
                     const std::byte* source) noexcept;
    void keep(std::size_t page, std::uint16_t cost) noexcept;
    void poison(std::size_t page) noexcept;
    bool heal(std::size_t page) noexcept;
    void change(std::size_t offset, std::size_t length, const std::byte* source) noexcept;
    std::uint16_t cost_of(const std::byte* contents) noexcept;
    void raise_events() noexcept;

    MemoryFile window_;
    OwnedDescriptor hole_;  // an empty file
    const std::uint64_t physical_bytes_;
    LazyArray<std::uint16_t> cost_;  // of each window page, under lock_
    SpinLock lock_;
    std::atomic<std::uint64_t> used_bytes_{0};  // written under lock_
    std::atomic<std::uint64_t> poisoned_pages_{0};
    std::atomic<std::uint64_t> trim_retries_{0};
    std::atomic<Listener*> listener_{nullptr};
    // Under lock_: what the listener was told last, and in how many stores it is told otherwise.
    bool told_low_ = false;
    unsigned stores_until_told_ = 0;
    alignas(64) std::byte page_[page_bytes];
    std::byte compressed_[page_bytes];
    LZ4_stream_t state_;
};

}  // namespace pnode::cxl
