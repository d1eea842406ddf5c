#include "compress/dictionary_set.h"

namespace pnode::compress {

const Dictionary* DictionarySet::find(Dictionary::Version version) const noexcept {
    const Dictionary* const found = in_slot(slot_of(version));
    return found != nullptr && found->version() == version ? found : nullptr;
}

const Dictionary* DictionarySet::in_slot(unsigned slot) const noexcept {
    return slots_[slot].dictionary.load(std::memory_order_acquire);
}

const Dictionary* DictionarySet::current() const noexcept {
    const unsigned current = current_.load(std::memory_order_acquire);
    return current == none ? nullptr : in_slot(current);
}

const Dictionary* DictionarySet::acquire() noexcept {
    for (;;) {
        const unsigned current = current_.load(std::memory_order_acquire);
        if (current == none) return nullptr;
        Slot& slot = slots_[current];
        std::uint64_t seen = slot.references.load(std::memory_order_relaxed);
        // Once 0 it stays 0 until another is published there: then that one is taken, which is as good.
        while (seen != 0) {
            if (slot.references.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel,
                                                      std::memory_order_relaxed))
                return slot.dictionary.load(std::memory_order_acquire);
        }
        // It was replaced between the two looks: look again, unless nothing has replaced it yet.
        if (current_.load(std::memory_order_acquire) == current) return nullptr;
    }
}

void DictionarySet::release_slot(unsigned slot) noexcept {
    slots_[slot].references.fetch_sub(1, std::memory_order_acq_rel);
}

bool DictionarySet::publish(const Dictionary& dictionary) noexcept {
    const unsigned index = slot_of(dictionary.version());
    Slot& slot = slots_[index];
    if (slot.dictionary.load(std::memory_order_acquire) != nullptr) return false;
    slot.dictionary.store(&dictionary, std::memory_order_release);
    slot.references.store(1, std::memory_order_release);  // from here on acquire() may take it
    const unsigned before = current_.exchange(index, std::memory_order_acq_rel);
    if (before != none) slots_[before].references.fetch_sub(1, std::memory_order_acq_rel);
    return true;
}

void DictionarySet::withdraw() noexcept {
    const unsigned before = current_.exchange(none, std::memory_order_acq_rel);
    if (before != none) slots_[before].references.fetch_sub(1, std::memory_order_acq_rel);
}

const Dictionary* DictionarySet::take_retired() noexcept {
    for (Slot& slot : slots_) {
        if (slot.references.load(std::memory_order_acquire) != 0) continue;
        if (const Dictionary* const retired = slot.dictionary.exchange(nullptr, std::memory_order_acq_rel))
            return retired;
    }
    return nullptr;
}

std::uint64_t DictionarySet::references(Dictionary::Version version) const noexcept {
    return find(version) == nullptr ? 0 : slots_[slot_of(version)].references.load(std::memory_order_relaxed);
}

}  // namespace pnode::compress
