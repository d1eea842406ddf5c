#include "runtime/dictionaries.h"

#include <new>
#include <utility>

namespace pnode {

void Dictionaries::publish(os::Mapping memory, const compress::Dictionary& dictionary) noexcept {
    // Zstd asks for tables that it then does not use, a third of it all.
    const std::uint64_t bytes = memory.resident_bytes();
    bytes_.fetch_add(bytes, std::memory_order_relaxed);
    bytes_of_[next_name() - 1] = bytes;
    memory_[next_name() - 1] = std::move(memory);
    set_.publish(dictionary);
    ++next_version_;
}

bool Dictionaries::collect() noexcept {
    bool any = false;
    while (const compress::Dictionary* const retired = set_.take_retired()) {
        const unsigned slot = name_of(*retired) - 1;
        bytes_.fetch_sub(bytes_of_[slot], std::memory_order_relaxed);
        memory_[slot] = os::Mapping();
        any = true;
    }
    return any;
}

void Dictionaries::withdraw() noexcept {
    set_.withdraw();
    collect();
}

void Dictionaries::forget() noexcept {
    set_.~DictionarySet();
    new (&set_) compress::DictionarySet;
    for (os::Mapping& memory : memory_) memory = os::Mapping();
    bytes_.store(0, std::memory_order_relaxed);
}

unsigned Dictionaries::count() const noexcept {
    unsigned count = 0;
    for (unsigned slot = 0; slot < slots; ++slot) count += set_.in_slot(slot) != nullptr ? 1 : 0;
    return count;
}

std::uint64_t Dictionaries::references(unsigned slot) const noexcept {
    const compress::Dictionary* const dictionary = set_.in_slot(slot);
    return dictionary == nullptr ? 0 : set_.references(dictionary->version());
}

}  // namespace pnode
