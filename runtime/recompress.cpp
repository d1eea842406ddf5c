// Which far pages are recompressed, and one page's recompression.

#include <algorithm>
#include <cstring>

#include "runtime/each_word.h"
#include "runtime/heap.h"
#include "runtime/replace_blob.h"

namespace pnode {
namespace {

constexpr std::uint64_t sweep_pages = 4096;  // worth a sweep: then the coldest may be others
constexpr unsigned survey_words = 1 << 17;   // counted in a piece of the survey
constexpr unsigned piece_words = 8192;       // looked at, and
constexpr unsigned packing_gain_part = 256;  // of the store, for which it is packed
constexpr unsigned piece_pages = 16;         // made anew before the gate is left and the CPU counted
constexpr unsigned soon_epochs = level_rule.rise_age_max;
constexpr std::uint64_t quiet_ns = 500'000'000;
constexpr unsigned oldest = Recompressor::ages - 1;

}  // namespace

unsigned Recompressor::age_of(const Heap& heap, PageWord word) const noexcept {
    return (heap.epoch() - word.stamp()) & (ages - 1);
}

// Far, our own to change, and likely to stay. When the heap evicts, ages tell; when it does not, what is far
// has been so for a while.
bool Recompressor::is_cold(Heap& heap, PageWord word) const noexcept {
    return word.state() == PageState::far && word.store() == heap.far.own_store() &&
           (is_quiet_ || heap.config.stress || age_of(heap, word) > soon_epochs);
}

// What the next dictionary's slot still has is made anew however warm it is: the slot must become free.
bool Recompressor::needs_work(Heap& heap, PageWord word) const noexcept {
    if (word.state() != PageState::far || word.store() != heap.far.own_store()) return false;
    const Dictionaries& dictionaries = heap.far.dictionaries();
    const compress::Dictionary* const current = dictionaries.current();
    if (current == nullptr) return false;
    // Of a block's bytes fewer than half are still somebody's.
    const bool is_sparse = word.is_block() && heap.far.pages_alive(word) * 2 < word.pages();
    if (is_sparse) return word.skip() != skip_max;
    if (word.dense() && (word.dictionary() == 0 || word.dictionary() == Dictionaries::name_of(*current)))
        return false;
    return word.skip() != skip_max && (word.dictionary() == dictionaries.next_name() || is_cold(heap, word));
}

void Recompressor::look_at_time(Heap& heap) noexcept {
    const std::uint64_t evicted = heap.eviction_clock.now();
    const std::uint64_t now = os::now_ns();
    if (evicted != evicted_ || evicted_since_ns_ == 0) {
        evicted_ = evicted;
        evicted_since_ns_ = now;
    }
    is_quiet_ = now - evicted_since_ns_ >= quiet_ns;
}

void Recompressor::begin_survey(Heap& heap) noexcept {
    look_at_time(heap);
    survey_ = Survey();
    hand_ = 0;
    phase_ = Phase::surveying;
}

void Recompressor::count(Heap& heap, std::uint64_t page, PageWord word) noexcept {
    if (word.state() != PageState::far || word.store() != heap.far.own_store()) return;
    if (is_new_ && word.skip() == skip_max && heap.word(page).exchange(word, word.with_skip(0)))
        word = word.with_skip(0);
    ++(is_cold(heap, word) ? survey_.cold : survey_.later);
    if (!needs_work(heap, word)) return;
    ++survey_.work;
    ++survey_.work_of_age[age_of(heap, word)];
}

// A fork waits for a piece, not for all of it. True: that was the last.
bool Recompressor::survey_piece(Heap& heap) noexcept {
    unsigned words = 0;
    hand_ = for_each_word(heap, hand_, [&](std::uint64_t page, PageWord word) {
        count(heap, page, word);
        return ++words < survey_words;
    });
    if (hand_ < heap.page_count) return false;
    phase_ = Phase::between;
    is_new_ = false;
    return true;
}

// The coldest first: those of an age that leaves a few thousand.
void Recompressor::begin_sweep() noexcept {
    std::uint64_t pages = 0;
    for (age_min_ = oldest; age_min_ != 0; --age_min_) {
        pages += survey_.work_of_age[age_min_];
        if (pages >= sweep_pages) break;
    }
    hand_ = 0;
    phase_ = Phase::sweeping;
}

Recompressor::Next Recompressor::step(Heap& heap) noexcept {
    const Inside inside(heap.operations);
    if (!heap.far.may_recompress()) return Next::when_something_is_far;
    heap.far.collect_dictionaries();
    if (phase_ == Phase::sweeping) return sweep_piece(heap);
    if (phase_ == Phase::packing) {
        if (!heap.packing.piece(heap, copy_)) phase_ = Phase::between;
        return Next::at_once;
    }
    if (phase_ == Phase::between) begin_survey(heap);
    return survey_piece(heap) ? act_on_survey(heap) : Next::at_once;
}

Recompressor::Next Recompressor::act_on_survey(Heap& heap) noexcept {
    if (is_training_due(heap)) {
        train(heap);
        return Next::at_once;
    }
    if (survey_.work == 0) {
        trim(heap);
        if (heap.packing.begin(heap, packing_gain_part)) {
            phase_ = Phase::packing;
            return Next::at_once;
        }
        return survey_.later != 0 ? Next::soon : Next::when_something_is_far;
    }
    begin_sweep();
    return Next::at_once;
}

// A piece of the sweep.
Recompressor::Next Recompressor::sweep_piece(Heap& heap) noexcept {
    unsigned words = 0;
    unsigned remade = 0;
    bool no_room = false;
    hand_ = for_each_word(heap, hand_, [&](std::uint64_t page, PageWord) {
        remade += consider(heap, page, &no_room);
        return ++words < piece_words && remade < piece_pages && !no_room;
    });
    if (hand_ < heap.page_count && !no_room) return Next::at_once;
    phase_ = Phase::between;
    trim(heap);
    return no_room ? Next::soon : Next::at_once;
}

// One page under the hand. How many there were to compress.
unsigned Recompressor::consider(Heap& heap, std::uint64_t page, bool* no_room) noexcept {
    AtomicPageWord& at = heap.word(page);
    const PageWord word = at.load();
    const bool leaves = word.dictionary() != 0 && word.dictionary() == heap.far.dictionaries().next_name();
    if (leaves && word.state() == PageState::near && word.place() != cxl::no_blob && at.make_busy(word)) {
        drop_kept(heap, word);
        at.publish(word.without_blob());
        return 0;
    }
    if (!needs_work(heap, word)) return 0;
    if (!leaves && age_of(heap, word) < age_min_) return 0;
    if (const unsigned pages = consider_block(heap, page, no_room)) return pages;
    const Remade remade = remake(heap, page, word);
    // One that cannot be decoded is for whoever needs it to find.
    if (remade == Remade::gone || remade == Remade::no_smaller) at.exchange(word, word.with_skip(skip_max));
    *no_room = remade == Remade::no_room;
    return 1;
}

std::size_t Recompressor::read_far(Heap& heap, std::uint64_t page, PageWord word,
                                   std::span<std::byte> contents) noexcept {
    std::size_t slot_bytes = 0;
    std::size_t copied = 0;
    {
        // A fault on this very page waits for the owner: nothing may come between.
        AtomicPageWord& at = heap.word(page);
        if (!at.make_busy(word)) return 0;
        const std::span<const std::byte> stored = heap.far.bytes(word);
        slot_bytes = stored.size();
        copied = std::min(slot_bytes, copy_.size());
        if (!heap.far.load(word, [&] { std::memcpy(copy_.data(), stored.data(), copied); })) copied = 0;
        at.publish(word);
    }
    if (copied == 0) return 0;
    // Only this thread retires dictionaries. A blob that cannot be decoded is found by whoever needs the
    // page.
    if (heap.far.decode(copy_.first(copied), word, page, contents, room_, nullptr) !=
        compress::DecodeResult::ok)
        return 0;
    return slot_bytes / word.pages();
}

Recompressor::Remade Recompressor::remake(Heap& heap, std::uint64_t page, PageWord word) noexcept {
    const std::span<std::byte> contents = pages_.first(page_bytes);
    const std::size_t slot_bytes = read_far(heap, page, word, contents);
    if (slot_bytes == 0) return Remade::gone;
    compress::CodecChoice choice = compress::recompression_of(heap.far.codec());
    choice.dictionary = heap.far.dictionaries().current();
    const std::span<std::byte> room = blob_.first(heap.far.worthwhile_bytes());
    const std::size_t blob_bytes =
        compress::encode(contents, heap.far.key().hash(contents), choice, room, encode_scratch_);
    rating_.add(blob_bytes != 0 ? blob_bytes : room.size());
    // A block's bytes are freed with its last page, whatever this one takes.
    const bool leaves = word.dictionary() == heap.far.dictionaries().next_name() || word.is_block();
    const bool is_smaller = blob_bytes != 0 && cxl::BlobStore::slot_bytes_for(blob_bytes) < slot_bytes;
    if (!is_smaller && !(leaves && blob_bytes != 0)) return Remade::no_smaller;
    return replace_blob(heap, page, word, room.first(blob_bytes)) == Replaced::no_room ? Remade::no_room
                                                                                       : Remade::smaller;
}

}  // namespace pnode
