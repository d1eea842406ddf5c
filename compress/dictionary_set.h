// The dictionaries of one heap that blobs may still name, and the one that new blobs are made with.
//
// Every blob made with a dictionary holds a reference to it, and so does being current. Whoever encodes gets
// one reference for the blob to be (acquire), which goes with the blob when it is freed, or back at once when
// none was stored (release). When the last goes the dictionary is retired: nobody finds it any more, and its
// memory is its owner's again (take_retired).
//
// Thread rule: find, in_slot, acquire and release: any thread, any context, also on the fault path: no lock,
// no loop without progress of another. publish and take_retired: one background thread.
#pragma once

#include <atomic>

#include "compress/dictionary.h"

namespace pnode::compress {

class DictionarySet {
  public:
    // How many versions may be alive: the current one, its predecessor, and one that is on its way out. Each
    // has a slot, which versions whose numbers are equal modulo this share; who stores blobs may remember the
    // slot in place of the version, and need not trust what a blob says.
    static constexpr unsigned versions_max = 3;
    static constexpr unsigned slot_of(Dictionary::Version version) noexcept { return version % versions_max; }

    // nullptr: there is none of this version, or in this slot. The caller holds a reference, by owning a blob
    // that names it.
    const Dictionary* find(Dictionary::Version version) const noexcept;
    const Dictionary* in_slot(unsigned slot) const noexcept;

    // The current one with a reference, or nullptr.
    const Dictionary* acquire() noexcept;
    void release(Dictionary::Version version) noexcept { release_slot(slot_of(version)); }
    void release_slot(unsigned slot) noexcept;

    // Makes it current. False, and nothing changes: its slot is still in use; let blobs of that version be
    // made anew, or go on with the current one.
    bool publish(const Dictionary& dictionary) noexcept;
    // New blobs are made without a dictionary from now on.
    void withdraw() noexcept;
    // One whose last reference went, no longer in the set; nullptr when there is none.
    const Dictionary* take_retired() noexcept;

    const Dictionary* current() const noexcept;  // without a reference: for who publishes
    std::uint64_t references(Dictionary::Version version) const noexcept;

  private:
    struct Slot {
        std::atomic<const Dictionary*> dictionary{nullptr};
        // 0: nobody may begin to use it. Its going to 0 (acq_rel) pairs with take_retired's look (acquire):
        // what the last user read was read before the memory is given back.
        std::atomic<std::uint64_t> references{0};
    };
    static constexpr unsigned none = versions_max;

    Slot slots_[versions_max];
    std::atomic<unsigned> current_{none};  // a slot
};

}  // namespace pnode::compress
