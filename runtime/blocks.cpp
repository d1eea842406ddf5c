// Blocks: neighbours that are far and equally cold, compressed together. Made by the recompressor alone, in
// place of the blobs that its pages had.

#include <algorithm>

#include "runtime/heap.h"
#include "runtime/replace_blob.h"

namespace pnode {
namespace {

constexpr unsigned coldest_epochs = 16;
// A block of 16 KiB that does not save half is not worth decoding four pages for one.
constexpr std::size_t small_blob_bytes_max = 8192;

std::size_t blob_bytes_max(unsigned pages) noexcept {
    return pages == 4 ? small_blob_bytes_max : pages * page_bytes / 2;
}

}  // namespace

// 64 KiB are decoded for a page of the very coldest only.
bool Recompressor::may_join(Heap& heap, std::uint64_t page, PageWord word, unsigned pages) const noexcept {
    return is_cold(heap, word) && heap.codec_of(page) == nullptr &&
           (pages == 4 || is_quiet_ || heap.config.stress || age_of(heap, word) > coldest_epochs);
}

// The block around a page that is to be made anew. How many pages there were to compress; 0: it is no block.
unsigned Recompressor::consider_block(Heap& heap, std::uint64_t page, bool* no_room) noexcept {
    if (!heap.far.may_have_blocks()) return 0;
    for (const unsigned pages : {16u, 4u}) {
        const std::uint64_t first = page - page % pages;
        if (pages > heap.far.codec().block_pages || first == block_tried_) continue;
        const Remade remade = remake_block(heap, first, pages);
        *no_room = remade == Remade::no_room;
        if (remade == Remade::smaller || *no_room) return pages;
        if (pages == 4) block_tried_ = first;  // its other pages come next
    }
    return 0;
}

Recompressor::Remade Recompressor::remake_block(Heap& heap, std::uint64_t first, unsigned pages) noexcept {
    PageWord words[block_pages_max];
    compress::ContentHash hashes[block_pages_max];
    for (unsigned index = 0; index < pages; ++index) {
        words[index] = heap.word(first + index).load();
        if (!may_join(heap, first + index, words[index], pages)) return Remade::gone;
    }
    std::size_t slot_bytes = 0;
    for (unsigned index = 0; index < pages; ++index) {
        const std::span<std::byte> contents = pages_.subspan(index * page_bytes, page_bytes);
        const std::size_t bytes = read_far(heap, first + index, words[index], contents);
        if (bytes == 0) return Remade::gone;
        slot_bytes += bytes;
        hashes[index] = heap.far.key().hash(contents);
    }
    compress::CodecChoice choice = compress::recompression_of(heap.far.codec());
    choice.dictionary = heap.far.dictionaries().current();
    const std::span<std::byte> room = blob_.first(blob_bytes_max(pages));
    const std::size_t blob_bytes = compress::encode_pages(pages_.first(pages * page_bytes), {hashes, pages},
                                                          choice, room, encode_scratch_);
    if (blob_bytes < BlockCounts::blob_bytes_min || cxl::BlobStore::slot_bytes_for(blob_bytes) >= slot_bytes)
        return Remade::no_smaller;
    for (unsigned index = 0; index < pages; ++index) rating_.add(blob_bytes / pages);
    return replace_by_block(heap, first, {words, pages}, {hashes, pages}, room.first(blob_bytes)) ==
                   Replaced::no_room
               ? Remade::no_room
               : Remade::smaller;
}

}  // namespace pnode
