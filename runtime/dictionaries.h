// The dictionaries of one heap: what its blobs may need to be decoded, and the memory that lies in.
//
// The page word of a page whose blob needs a dictionary says which (page_word.h), and is a reference to it,
// whether the page is far or near with its blob kept. The node is not asked: its bytes may have gone wrong,
// and must not cost other pages their dictionary. Whoever takes a blob out of a word releases it.
//
// Words, counts and memory are private: a forked child has its own of all three, and decodes what it
// inherited whatever the parent does. None of it is managed memory, and nothing of it is in a node.
//
// Thread rule: of() by the owner of the page, acquire() and release(): any thread, any context. publish() and
// collect() by the recompressor; withdraw() and forget() with nobody in the middle of anything.
#pragma once

#include <atomic>
#include <cstdint>

#include "compress/dictionary_set.h"
#include "runtime/os/memory.h"
#include "runtime/page_word.h"

namespace pnode {

class Dictionaries {
  public:
    static constexpr unsigned slots = compress::DictionarySet::versions_max;

    // What the word's blob needs; null: nothing.
    const compress::Dictionary* of(PageWord word) const noexcept {
        return word.dictionary() == 0 ? nullptr : set_.in_slot(word.dictionary() - 1);
    }
    // As a page word names it.
    static unsigned name_of(const compress::Dictionary& dictionary) noexcept {
        return 1 + compress::DictionarySet::slot_of(dictionary.version());
    }
    const compress::Dictionary* current() const noexcept { return set_.current(); }
    // The current one with a reference for a word to be, or null.
    const compress::Dictionary* acquire() noexcept { return set_.acquire(); }
    // The reference of a word that will not name its blob any more, or of one that was to be. 0: there is
    // none.
    void release(PageWord word) noexcept { release(word.dictionary()); }
    void release(unsigned name) noexcept {
        if (name != 0) set_.release_slot(name - 1);
    }

    // The version that publish() takes next, and the slot of it as a page word names it: what words still
    // name there has to go first.
    compress::Dictionary::Version next_version() const noexcept { return next_version_; }
    unsigned next_name() const noexcept { return 1 + compress::DictionarySet::slot_of(next_version_); }
    bool has_room() const noexcept { return set_.in_slot(next_name() - 1) == nullptr; }
    // Makes the dictionary that lies in `memory` current: has_room(), and it is of next_version().
    void publish(os::Mapping memory, const compress::Dictionary& dictionary) noexcept;
    // Unmaps what nothing names any more. True: something was.
    bool collect() noexcept;
    // No dictionary is current any more.
    void withdraw() noexcept;
    // No word names any, whatever the counts say.
    void forget() noexcept;

    std::uint64_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }
    unsigned count() const noexcept;
    // Words that name the slot, and being current; for validate().
    std::uint64_t references(unsigned slot) const noexcept;

  private:
    compress::DictionarySet set_;
    os::Mapping memory_[slots];
    std::uint64_t bytes_of_[slots] = {};
    std::atomic<std::uint64_t> bytes_{0};
    compress::Dictionary::Version next_version_ = 1;
};

}  // namespace pnode
