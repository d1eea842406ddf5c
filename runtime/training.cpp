// When a dictionary is trained, on what, and whether it is worth its memory.

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>

#include "runtime/each_word.h"
#include "runtime/heap.h"

namespace pnode {
namespace {

constexpr std::size_t content_bytes_min = 8 * 1024;
// More gains nothing and costs each fault some cache. Of as many samples zstd, whose tables count as well,
// makes more with a smaller one; lz4, for which it is all there is, with a larger.
constexpr std::size_t content_bytes_max = 48 * 1024;
constexpr std::size_t zstd_content_bytes_max = 32 * 1024;
constexpr std::uint64_t samples_per_content =
    64;                                    // bytes of samples a byte of the largest dictionary, or more
constexpr int statistics_level_max = 6;    // what 14 gathers is no better, and takes five times as long
constexpr std::uint64_t tried_pages = 64;  // samples that are kept back, to rate it on
constexpr std::uint64_t sample_pages_max = samples_per_content * content_bytes_max / page_bytes + tried_pages;
constexpr std::uint64_t stress_pages_min = 128;
constexpr std::uint64_t stress_version_pages = 512;  // under stress versions come and go

std::size_t content_bytes_max_of(const Heap& heap) noexcept {
    const int level = compress::dictionary_level(compress::recompression_of(heap.far.codec()));
    return level == compress::Dictionary::for_lz4_hc ? content_bytes_max : zstd_content_bytes_max;
}

}  // namespace

bool Recompressor::is_training_due(Heap& heap) const noexcept {
    const Dictionaries& dictionaries = heap.far.dictionaries();
    if (!dictionaries.has_room()) return false;
    if (dictionaries.current() != nullptr)
        return rating_.has_drifted() || (heap.config.stress && rating_.pages >= stress_version_pages);
    const std::uint64_t pages_least = heap.config.stress ? stress_pages_min : pages_min;
    return survey_.cold >= std::max(pages_least, untrainable_pages_ + untrainable_pages_ / 4);
}

// Inside the operations gate, so that no fork falls into the middle of an allocation: it waits some 20 ms.
void Recompressor::train(Heap& heap) noexcept {
    os::Mapping memory;
    const std::uint64_t pages =
        std::min(survey_.cold - survey_.cold / 8, sample_pages_max);  // some have left
    std::uint64_t blob_bytes = 0;
    bool is_published = false;
    if (memory.map(pages * page_bytes) == 0) {
        ::madvise(memory.address(), memory.bytes(), MADV_DONTFORK);
        const std::span<std::byte> samples(memory.address(), memory.bytes());
        const std::uint64_t gathered = gather(heap, samples, &blob_bytes);
        std::size_t content_bytes = std::clamp<std::size_t>(
            (gathered - std::min(gathered, tried_pages)) * page_bytes / samples_per_content,
            content_bytes_min, content_bytes_max_of(heap));
        for (; gathered > tried_pages && !is_published && content_bytes >= content_bytes_min;
             content_bytes /= 2)
            is_published =
                try_dictionary(heap, samples.first(gathered * page_bytes), blob_bytes, content_bytes);
    }
    if (is_published) {
        untrainable_pages_ = 0;
        return;
    }
    // As it is then; and it is not tried again before there is more to learn from.
    untrainable_pages_ = survey_.cold;
    rating_.stay();
}

// Cold pages from all over the heap, every ninth at first, then the others, so that those that rate the
// dictionary are of its kind. `blob_bytes`: what the first `tried_pages` of them take now. How many.
std::uint64_t Recompressor::gather(Heap& heap, std::span<std::byte> samples,
                                   std::uint64_t* blob_bytes) noexcept {
    const std::uint64_t pages = samples.size() / page_bytes;
    const std::uint64_t stride = std::max<std::uint64_t>(survey_.cold / pages, 1);
    std::uint64_t tried = 0, rest = 0, seen = 0;
    const std::uint64_t rest_max = pages - std::min(pages, tried_pages);
    for_each_word(heap, 0, [&](std::uint64_t page, PageWord word) {
        if (!is_cold(heap, word) || seen++ % stride != 0) return true;
        const bool is_tried = tried < tried_pages && (rest >= rest_max || (tried + rest) % 9 == 0);
        const std::uint64_t at = is_tried ? tried : tried_pages + rest;
        if (at >= pages) return true;
        const std::size_t bytes = read_far(heap, page, word, samples.subspan(at * page_bytes, page_bytes));
        if (bytes == 0) return true;
        if (is_tried) *blob_bytes += bytes;
        ++(is_tried ? tried : rest);
        return tried + rest < pages;
    });
    return tried == tried_pages ? tried + rest : 0;
}

// Bytes of slots that the pages' blobs would take.
std::uint64_t Recompressor::bytes_with(Heap& heap, const compress::Dictionary* dictionary,
                                       std::span<const std::byte> samples) noexcept {
    compress::CodecChoice choice = compress::recompression_of(heap.far.codec());
    choice.dictionary = dictionary;
    std::uint64_t sum = 0;
    for (; !samples.empty(); samples = samples.subspan(page_bytes)) {
        const std::size_t bytes = compress::encode(samples.first(page_bytes), {}, choice,
                                                   blob_.first(heap.far.worthwhile_bytes()), encode_scratch_);
        sum += bytes != 0 ? bytes : page_bytes;
    }
    return sum;
}

// Trains on all samples but the first, rates it on those, and makes it current if it will save twice what it
// takes, or 3 % over the one there is.
bool Recompressor::try_dictionary(Heap& heap, std::span<const std::byte> samples, std::uint64_t blob_bytes,
                                  std::size_t content_bytes) noexcept {
    Dictionaries& dictionaries = heap.far.dictionaries();
    const int level = compress::dictionary_level(compress::recompression_of(heap.far.codec()));
    const std::span<const std::byte> tried = samples.first(tried_pages * page_bytes);
    os::Mapping content;
    os::Mapping memory;
    if (content.map(content_bytes) != 0) return false;
    const std::span<std::byte> trained(content.address(), content_bytes);
    std::size_t bytes = 0;
    try {
        bytes = compress::Dictionary::train(samples.subspan(tried.size()), page_bytes, trained,
                                            std::min(level, statistics_level_max));
    } catch (const std::bad_alloc&) {
        return false;
    }
    if (bytes == 0 || memory.map((compress::Dictionary::memory_bytes(bytes, level) + page_bytes - 1) /
                                 page_bytes * page_bytes) != 0)
        return false;
    const compress::Dictionary* const made = compress::Dictionary::make(
        {memory.address(), memory.bytes()}, trained.first(bytes), level, dictionaries.next_version());
    if (made == nullptr) return false;
    const std::uint64_t now = bytes_with(heap, made, tried);
    const bool is_better =
        dictionaries.current() != nullptr
            ? now + now / 32 < bytes_with(heap, dictionaries.current(), tried)
            : now < blob_bytes && (blob_bytes - now) / tried_pages * survey_.cold > 2 * memory.bytes();
    if (!is_better && !heap.config.stress) return false;
    if (!heap.far.publish(std::move(memory), *made)) return false;
    rating_.begin(now / tried_pages);
    is_new_ = true;
    heap.statistics.dictionaries_trained.add();
    return true;
}

}  // namespace pnode
