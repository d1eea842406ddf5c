// Another blob in the place of a far page's: what the recompressor does to page words. Whoever wants a page
// meanwhile wins, and what was made is dropped.
//
// Thread rule: the recompressor, inside the operations gate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "compress/blob.h"
#include "runtime/page_word.h"

namespace pnode {

class Heap;

enum class Replaced : std::uint8_t { done, not_the_same, no_room };

// `blob` is of what the page was when its word was `word`.
Replaced replace_blob(Heap& heap, std::uint64_t page, PageWord word,
                      std::span<const std::byte> blob) noexcept;

// A block from `first` on, whose words were `words` and contents had these hashes: all of them, or none.
Replaced replace_by_block(Heap& heap, std::uint64_t first, std::span<const PageWord> words,
                          std::span<const compress::ContentHash> hashes,
                          std::span<const std::byte> blob) noexcept;

// Packing: the blob that `word` names lies elsewhere in the store, for all pages that name it, near ones too.
// `copy` is room for a slot. False: it stays, for somebody wants one of the pages, or the store has no slot.
bool move_blob(Heap& heap, std::uint64_t page, PageWord word, std::span<std::byte> copy) noexcept;

}  // namespace pnode
