#include "runtime/replace_blob.h"

#include <bit>

#include "runtime/heap.h"

namespace pnode {
namespace {

// The dictionary that the blob names with a reference for each word to be, as a page word names it; 0: none.
unsigned dictionary_of(Heap& heap, std::span<const std::byte> blob) noexcept {
    compress::Dictionary::Version version = 0;
    if (!compress::stored_dictionary(blob, &version)) return 0;
    return Dictionaries::name_of(*heap.far.dictionaries().acquire());
}

// The word may name another blob in the same slot by now, of other contents: their hash tells.
bool has_hash(Heap& heap, std::uint64_t page, PageWord word, const compress::ContentHash& wanted) noexcept {
    compress::ContentHash hash;
    return heap.far.load(word, [&] { hash = heap.far.stored_hash(word, page); }) && hash == wanted;
}

void count_replaced(Heap& heap, std::uint64_t pages) noexcept {
    heap.statistics.recompressed.add(pages);
    if (heap.near.is_resting()) heap.far_room_made(pages);
}

// Words that name one blob, owned all together or not at all.
class OwnedWords {
  public:
    OwnedWords(Heap& heap, std::uint64_t first) noexcept : heap_(heap), first_(first) {}
    // False: somebody has the page, or its word has changed.
    bool own(unsigned index, PageWord word) noexcept {
        if (!heap_.word(first_ + index).make_busy(word)) return false;
        words_[index] = word;
        mask_ |= 1u << index;
        return true;
    }
    unsigned count() const noexcept { return static_cast<unsigned>(std::popcount(mask_)); }
    template <class Change>
    void publish(const Change& change) noexcept {
        for (; mask_ != 0; mask_ &= mask_ - 1) {
            const auto index = static_cast<unsigned>(std::countr_zero(mask_));
            heap_.word(first_ + index).publish(change(words_[index]));
        }
    }
    void give_back() noexcept {
        publish([](PageWord word) { return word; });
    }

  private:
    Heap& heap_;
    const std::uint64_t first_;
    PageWord words_[block_pages_max];
    unsigned mask_ = 0;
};

bool names(PageWord word, PageWord other) noexcept {
    return (word.state() == PageState::far || word.state() == PageState::near) &&
           word.store() == other.store() && word.place() == other.place() && word.pages() == other.pages();
}

}  // namespace

Replaced replace_blob(Heap& heap, std::uint64_t page, PageWord word,
                      std::span<const std::byte> blob) noexcept {
    const unsigned dictionary = dictionary_of(heap, blob);
    const cxl::BlobRef ref = heap.far.place(blob);
    const PageWord remade = word.with_blob(heap.far.own_store(), ref, dictionary).with_dense().with_skip(0);
    if (ref == cxl::no_blob) {
        heap.far.dictionaries().release(remade);
        return Replaced::no_room;
    }
    AtomicPageWord& at = heap.word(page);
    bool is_same = at.make_busy(word);
    if (is_same) {
        is_same = has_hash(heap, page, word, compress::stored_hash(blob));
        at.publish(is_same ? remade : word);
    }
    heap.far.drop(is_same ? word : remade);
    if (!is_same) return Replaced::not_the_same;
    count_replaced(heap, 1);
    return Replaced::done;
}

// Each word is owned as it was read, and waits for nobody.
Replaced replace_by_block(Heap& heap, std::uint64_t first, std::span<const PageWord> words,
                          std::span<const compress::ContentHash> hashes,
                          std::span<const std::byte> blob) noexcept {
    const auto pages = static_cast<unsigned>(words.size());
    const unsigned dictionary = dictionary_of(heap, blob);
    const cxl::BlobRef ref = heap.far.place(blob);
    if (ref == cxl::no_blob) {
        heap.far.dictionaries().release(dictionary);
        return Replaced::no_room;
    }
    heap.far.begin_block(ref, pages);
    const auto remade = [&](PageWord word) {
        return word.with_blob(heap.far.own_store(), ref, dictionary).with_block(pages).with_skip(0);
    };
    OwnedWords owned(heap, first);
    while (owned.count() < pages && owned.own(owned.count(), words[owned.count()])) continue;
    bool is_same = owned.count() == pages;
    for (unsigned index = 0; index < pages && is_same; ++index)
        is_same = has_hash(heap, first + index, words[index], hashes[index]);
    owned.publish([&](PageWord word) { return is_same ? remade(word) : word; });
    for (const PageWord word : words) heap.far.drop(is_same ? word : remade(word));
    if (!is_same) return Replaced::not_the_same;
    count_replaced(heap, pages);
    return Replaced::done;
}

// Of a block, every page that still names the blob is owned, and that they are all is what the block's count
// says: who takes a page from it has its word first, and counts afterwards.
bool move_blob(Heap& heap, std::uint64_t page, PageWord word, std::span<std::byte> copy) noexcept {
    const std::uint64_t first = page - page % word.pages();
    OwnedWords owned(heap, first);
    for (unsigned index = 0; index < word.pages(); ++index) {
        const PageWord other = heap.word(first + index).load();
        if (names(other, word) && !owned.own(index, other)) break;
    }
    const unsigned wanted = word.is_block() ? heap.far.pages_alive(word) : 1;
    const cxl::BlobRef ref =
        owned.count() == wanted ? heap.far.copy_elsewhere(word, copy) : cxl::BlobRef{cxl::no_blob};
    if (ref == cxl::no_blob) {
        owned.give_back();
        return false;
    }
    // What is near and keeps its blob is counted by the slot's bytes.
    const std::size_t before = heap.far.bytes(word).size(),
                      after = heap.far.bytes(word.with_place(ref)).size();
    owned.publish([&](PageWord each) {
        if (each.state() == PageState::near) heap.statistics.kept_blob_bytes.add(after - before);
        return each.with_place(ref);
    });
    heap.far.free_place(word);
    return true;
}

}  // namespace pnode
