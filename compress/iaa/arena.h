// The only memory that the device ever sees: staging pages, completion records and the AECS, pre-faulted,
// locked where the limits allow, and never managed. A device's access to a page that userfaultfd would have
// to fill fails, so what goes to the device and what comes from it is copied through here.
//
// A slot is one request's: a source page, a destination page, a record. When its request was given up, the
// slot stays out of use until the device has completed it, for the device may write there until then.
//
// Thread rule: open, close and forget by one thread; take, give_back and abandon by any thread, in any
// context; a slot is its taker's.
#pragma once

#include <atomic>

#include "compress/iaa/hardware.h"

namespace pnode::compress::iaa {

class WorkQueue;

class Arena {
  public:
    static constexpr unsigned slots = 64;
    static_assert(slots * sizeof(Descriptor) <= portal_bytes);  // a place in the portal for each
    static constexpr unsigned none = slots;

    Arena() = default;
    ~Arena() { close(); }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // 0 or an errno. Not inherited by children.
    int open() noexcept;
    // Only when no device can write here any more.
    void close() noexcept;
    void forget() noexcept { memory_ = nullptr; }
    bool is_locked() const noexcept { return locked_; }

    // A slot, or none. `late` counts the abandoned ones that it found completed; their credits are given
    // back.
    unsigned take(std::uint64_t* late) noexcept;
    void give_back(unsigned slot) noexcept { states_[slot].store(State::free, std::memory_order_release); }
    // The device may still write to it: it is `queue`'s until its record is complete.
    void abandon(unsigned slot, WorkQueue* queue) noexcept;

    std::byte* source(unsigned slot) const noexcept { return memory_ + slot * 2 * page_bytes; }
    std::byte* destination(unsigned slot) const noexcept { return source(slot) + page_bytes; }
    Completion& record(unsigned slot) const noexcept {
        return reinterpret_cast<Completion*>(memory_ + records_offset)[slot];
    }
    const CompressAecs& aecs() const noexcept {
        return *reinterpret_cast<const CompressAecs*>(memory_ + aecs_offset);
    }
    // Brings the page of `address` back for the device, if it is in here.
    bool touch(std::uint64_t address) noexcept;

  private:
    enum class State : std::uint8_t { free, taken, abandoned };
    bool try_take(unsigned slot, std::uint64_t* late) noexcept;

    static constexpr std::size_t records_offset = slots * 2 * page_bytes;
    static constexpr std::size_t aecs_offset = records_offset + page_bytes;
    static constexpr std::size_t arena_bytes = aecs_offset + page_bytes;
    static_assert(slots * sizeof(Completion) <= page_bytes && sizeof(CompressAecs) <= page_bytes);

    std::byte* memory_ = nullptr;
    bool locked_ = false;
    std::atomic<unsigned> next_{0};
    std::atomic<State> states_[slots] = {};
    WorkQueue* owners_[slots] = {};  // of abandoned slots; published by their state
};

}  // namespace pnode::compress::iaa
