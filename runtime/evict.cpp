// Taking pages out: the hand picks, UFFDIO_MOVE takes a batch into limbo, each page is dropped, compressed or
// put back. DESIGN 5. Pages that were not written to since they came near are not moved: unwritten.h.
//
// A page in limbo is never owned while it is compressed: an access gets it back at once (resolve_limbo copies
// it from staging), and the evictor learns of it because its compare-and-swap from limbo fails. Where the
// kernel has no MOVE, or refuses because the page is read-only, the page goes into limbo *in place*,
// write-protected: reads go on, the first write takes it back.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

#include "runtime/heap.h"
#include "runtime/holds.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/under_our_feet.h"
#include "runtime/unwritten.h"

namespace pnode {
namespace {

constexpr unsigned scan_pages_max = os::stepped ? 2 : 8192;     // words looked at for one batch
constexpr unsigned scan_pages_enough = os::stepped ? 1 : 1024;  // ... once something was found
constexpr unsigned move_retries_max = 16;

// ---- picking ----

// Takes it for the batch, if it still is what it was: an unwritten page with its blob is noted only, and
// owned when it is dropped.
bool take(const Heap& heap, EvictLane& lane, std::uint64_t page, PageWord word) noexcept {
    if (is_unwritten(heap, word) && word.place() != cxl::no_blob) {
        lane.unwritten[lane.unwritten_count++] = UnwrittenPage{.page = page, .word = word};
        return true;
    }
    if (!heap.word(page).make_busy(word)) return false;
    lane.out[lane.out_count++] = OutgoingPage{.page = page, .word = word};
    return true;
}

// Unwritten pages cost next to nothing but their one flush of TLBs: so many go at once, where the heap is not
// small.
bool is_full(const Heap& heap, const EvictLane& lane) noexcept {
    const std::uint64_t unwritten_max =
        std::clamp<std::uint64_t>(heap.near.hard_pages() / 32, batch_pages, EvictLane::unwritten_max);
    return lane.out_count == batch_pages || lane.unwritten_count >= unwritten_max;
}

// It did not compress, and not much has left since: four times what is near. Where hardly anything else is
// near the hand comes round with every few pages that leave: tried at each of its turns, such pages would
// cost more than all others. But they may have been written to since: if there is nothing else, however warm,
// they are tried.
bool is_hopeless(const Heap& heap, PageWord word) noexcept {
    constexpr unsigned hopeless_epochs = 32;
    return word.incompressible() && heap.hand_found_nothing <= skip_max &&
           (heap.epoch() - word.stamp()) % stamps < hopeless_epochs;
}

// Looks at one page under the hand: takes it, or passes over it once more.
void consider(Heap& heap, EvictLane& lane, std::uint64_t page) noexcept {
    const PageWord word = heap.word(page).load();
    if (word.state() != PageState::near || word.pinned() || is_under_our_feet(heap, page)) return;
    if (is_hopeless(heap, word)) return;
    if (word.skip() != 0) {
        heap.word(page).exchange(word, word.with_skip(word.skip() - 1));
    } else {
        take(heap, lane, page, word);
    }
}

// Whoever waits for the hand owns no page, and its holder waits for no fault, so handlers may wait too; but a
// handler within the limit has better things to do.
bool take_hand(Heap& heap, Evicting who) noexcept {
    for (os::Backoff backoff; heap.hand_taken.exchange(true, std::memory_order_acquire); backoff.wait()) {
        if (who == Evicting::handler && !heap.near.past_limit()) return false;
    }
    return true;
}

// Pages of blobs under lease go first (leased_pages.h), if they are still what they were.
void pick_leased(Heap& heap, EvictLane& lane) noexcept {
    while (!is_full(heap, lane)) {
        const std::uint64_t page = heap.leased_pages.take();
        if (page == LeasedPages::none) return;
        const PageWord word = heap.word(page).load();
        if (word.state() == PageState::near && word.place() != cxl::no_blob &&
            word.store() != heap.far.own_store())
            consider(heap, lane, page);
    }
}

// At the first page of a group (near_map.h): is nothing of it near, and has it been told so? The hand's
// holder asks.
bool is_group_away(Heap& heap, std::uint64_t first) noexcept {
    if (first % NearMap::group_pages != 0) return false;
    if (!heap.near_map.may_be_near(first)) return true;
    return heap.near_map.clear_if(first, [&] {
        const std::uint64_t end = std::min(first + NearMap::group_pages, heap.page_count);
        for (std::uint64_t page = first; page < end; ++page) {
            const PageState state = heap.word(page).load_in_order().state();
            if (state != PageState::fresh && state != PageState::far && state != PageState::poisoned)
                return false;
        }
        return true;
    });
}

// Until a batch is full or enough was looked at.
void move_hand(Heap& heap, EvictLane& lane) noexcept {
    unsigned looked_at = 0;
    std::uint64_t chunks_passed = 0;
    const std::uint64_t chunks = (heap.page_count + heap.chunk_pages - 1) / heap.chunk_pages;
    while (!is_full(heap, lane) && chunks_passed <= chunks &&
           looked_at < (!lane.is_empty() ? scan_pages_enough : scan_pages_max)) {
        const std::uint64_t chunk = heap.chunk_of(heap.hand);
        if (heap.chunks.allocated_pages(chunk) == 0 || !track_chunk(heap, chunk)) {
            heap.hand = (chunk + 1) * heap.chunk_pages;
            ++chunks_passed;
        } else if (is_group_away(heap, heap.hand)) {
            const std::uint64_t end = heap.end_of_chunk(chunk);
            heap.hand = heap.near_map.next(heap.hand, end);
            chunks_passed += heap.hand == end ? 1 : 0;
            ++looked_at;
        } else {
            consider(heap, lane, heap.hand++);
            ++looked_at;
        }
        if (heap.hand >= heap.page_count) heap.hand = 0;
    }
    heap.hand_found_nothing = lane.is_empty() ? heap.hand_found_nothing + 1 : 0;
}

// In a forked child what is not leased leaves last: only when what is on its way out already will not do.
bool leased_pages_will_do(Heap& heap) noexcept {
    return heap.far.own_store() != 0 &&
           heap.near.pages() <= heap.near.hard_pages() + heap.statistics.limbo_pages.value();
}

// A batch, or less. One thread at a time.
void pick(Heap& heap, EvictLane& lane, Evicting who) noexcept {
    if (!take_hand(heap, who)) return;
    pick_leased(heap, lane);
    if (lane.is_empty() && !leased_pages_will_do(heap)) move_hand(heap, lane);
    heap.hand_taken.store(false, std::memory_order_release);
}

// ---- taking out ----

void put_back_near(Heap& heap, OutgoingPage& out, unsigned skip) noexcept {
    heap.word(out.page).publish(out.word.with_skip(std::max(out.word.skip(), skip)));
    out.contents = nullptr;
}

void refuse_pinned(Heap& heap, OutgoingPage& out) noexcept {
    put_back_near(heap, out, refused_pinned(heap, out.word).skip());
}

void enter_limbo(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    OutgoingPage& out = lane.out[index];
    out.contents = lane.staging + index * page_bytes;
    out.word = out.word.with_write_protected(false);  // should it come back
    heap.statistics.limbo_pages.add();
    heap.word(out.page).publish(out.word.with(PageState::limbo).with_slot(lane.first_slot + index));
}

// The page is not there: the application dropped it behind our back. Its word catches up.
void take_out_absent(Heap& heap, OutgoingPage& out) noexcept {
    drop_kept(heap, out.word);
    heap.word(out.page).publish(PageWord());
    heap.near.discharge(1);
    out.contents = nullptr;
}

// The application keeps reading the page; what is compressed is a copy, made while nobody can write to it or
// release it, so that the evictor never touches a page that is not its own. The slot names the evictor:
// another may have had the page in limbo since, and only the last may claim it.
void enter_limbo_in_place(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    OutgoingPage& out = lane.out[index];
    std::byte* const address = heap.address_of(out.page);
    std::byte* const copy = lane.staging + index * page_bytes;
    if (os::is_locked(address)) return refuse_pinned(heap, out);
    if (os::uffd_write_protect(heap.uffd.fd, address, page_bytes, true) != 0)
        return put_back_near(heap, out, skip_max);
    out.word = out.word.with_write_protected(false);  // it is ours now, whatever it was
    if (!os::is_present(address)) return take_out_absent(heap, out);
    std::size_t done = 0;
    if (os::uffd_copy(heap.uffd.fd, copy, address, page_bytes, &done) != 0) {
        os::uffd_write_protect(heap.uffd.fd, address, page_bytes, false);
        return put_back_near(heap, out, skip_max);
    }
    out.contents = copy;
    out.in_place = true;
    heap.statistics.evictions_in_place.add();
    heap.statistics.limbo_pages.add();
    heap.word(out.page).publish(
        out.word.with(PageState::limbo).with_slot(lane.first_slot + index).with_in_place(true));
}

// MOVE said EBUSY. After a fork, whoever made it (a bare clone(2) tells nobody), pages are not exclusive,
// while the child lives and when it is gone (FACTS.md), until they are written to: for a run that is one
// call, which copies what is still shared, and does nothing to a page that is pinned. How many pages from
// out[from] on it made exclusive; of those that are there and may be written to, for on others the caller,
// who owns them, would wait for itself.
unsigned make_exclusive(const Heap& heap, const EvictLane& lane, unsigned from, unsigned count) noexcept {
    unsigned char present[batch_pages] = {};
    std::byte* const first = heap.address_of(lane.out[from].page);
    if (os::find_present(first, count * page_bytes, present) != 0) return 0;
    unsigned ready = 0;
    while (ready < count && (present[ready] & 1) != 0 && !lane.out[from + ready].word.write_protected())
        ++ready;
    return ready != 0 && os::populate(first, ready * page_bytes, os::Populate::write) == 0 ? ready : 0;
}

// MOVE wants equal protection at both ends. What may be read can leave in place; what may not stays near. A
// page of staging's own protection was refused for another reason: the program has it locked.
bool is_otherwise_protected(Heap& heap, std::uint64_t page) noexcept {
    const int protection = PageTraits::protection_of(heap.traits[page]);
    return (protection & PROT_READ) != 0 && protection != (PROT_READ | PROT_WRITE) &&
           heap.uffd.has(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
}

// What a thread holds for a system call (holds.h) stays; the words are busy already, so whoever writes a page
// down from here on waits for it.
void let_held_stay(Heap& heap, EvictLane& lane) noexcept {
    if (!any_holds()) return;
    hold_fence();
    unsigned kept = 0;
    for (unsigned index = 0; index < lane.out_count; ++index) {
        if (is_page_held(heap, lane.out[index].page)) {
            put_back_near(heap, lane.out[index], 1);
        } else {
            lane.out[kept++] = lane.out[index];
        }
    }
    lane.out_count = kept;
}

// One run of neighbours, out[from] .. out[from + count).
void move_out(Heap& heap, EvictLane& lane, unsigned from, unsigned count) noexcept {
    unsigned retries = 0;
    unsigned piece_max = batch_pages;
    unsigned exclusive_end = from;
    while (count != 0) {
        std::size_t done = 0;
        const unsigned piece = std::min(count, piece_max);
        const int error = os::uffd_move(heap.uffd.fd, lane.staging + from * page_bytes,
                                        heap.address_of(lane.out[from].page), piece * page_bytes, &done);
        const auto moved = static_cast<unsigned>(done / page_bytes);
        for (unsigned index = from; index < from + moved; ++index) enter_limbo(heap, lane, index);
        from += moved;
        count -= moved;
        if (error == 0 || count == 0) continue;
        if (error == EBUSY && from >= exclusive_end) {
            exclusive_end = from + make_exclusive(heap, lane, from, count);
            if (exclusive_end != from) continue;
        }
        if (error == EAGAIN && ++retries < move_retries_max) continue;
        if (error == EEXIST && ++retries < move_retries_max) {
            os::drop_pages(lane.staging + from * page_bytes, page_bytes);
            continue;
        }
        if (error == EINVAL && piece > 1) {
            piece_max = 1;  // not all of the run has the same protection
            continue;
        }
        if (error == ENOENT) {
            take_out_absent(heap, lane.out[from]);
        } else if (error == EINVAL && is_otherwise_protected(heap, lane.out[from].page)) {
            enter_limbo_in_place(heap, lane, from);
        } else {
            refuse_pinned(heap, lane.out[from]);
        }
        ++from;
        --count;
    }
}

// How many neighbours from out[from] on are still to be taken out.
unsigned run_at(const EvictLane& lane, unsigned from) noexcept {
    unsigned count = 0;
    while (from + count < lane.out_count && lane.out[from + count].contents == nullptr &&
           lane.out[from + count].page == lane.out[from].page + count)
        ++count;
    return count;
}

void take_out(Heap& heap, EvictLane& lane) noexcept {
    let_held_stay(heap, lane);
    stage_unwritten(heap, lane);
    for (unsigned from = 0; from < lane.out_count;) {
        unsigned count = run_at(lane, from);
        if (count != 0 && heap.uffd.has(UFFD_FEATURE_MOVE)) {
            move_out(heap, lane, from, count);
        } else if (count != 0) {
            count = 1;
            enter_limbo_in_place(heap, lane, from);
        }
        from += std::max(count, 1u);
    }
}

// ---- putting away ----

// unwritten: near still, with a blob, to be dropped with the others.
enum class Away : std::uint8_t { taken_back, kept_near, no_room, far, fresh, unwritten };

// Its contents are a copy, and the page is where it was, write-protected still (stage_unwritten).
bool is_copied(const Heap& heap, const OutgoingPage& out) noexcept {
    return out.in_place && is_unwritten(heap, out.word);
}

// Wins the page back from limbo, or learns that an access or a release was first.
bool claim_limbo(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    const OutgoingPage& out = lane.out[index];
    const PageWord limbo = out.word.with(PageState::limbo).with_slot(lane.first_slot + index);
    if (heap.word(out.page).make_busy(limbo.with_in_place(out.in_place))) return true;
    // In place, the kept blob was known to us alone (resolve_limbo); otherwise it went back with the page.
    if (out.in_place) drop_kept(heap, out.word);
    return false;
}

// The caller owns the busy page. Puts the bytes back where the application sees them.
void return_near(Heap& heap, OutgoingPage& out, PageWord word) noexcept {
    std::byte* address = heap.address_of(out.page);
    std::size_t done = 0;
    if (is_copied(heap, out)) return heap.word(out.page).publish(word);
    if (out.in_place) {
        os::uffd_write_protect(heap.uffd.fd, address, page_bytes, false);
    } else {
        int error = EAGAIN;
        for (unsigned tries = 0; error == EAGAIN && tries < move_retries_max; ++tries)
            error = os::uffd_move(heap.uffd.fd, address, out.contents, page_bytes, &done);
        while (error != 0 && error != EEXIST && error != ENOENT && error != ESRCH) {
            error = os::uffd_copy(heap.uffd.fd, address, out.contents, page_bytes, &done);
        }
    }
    os::uffd_wake(heap.uffd.fd, address, page_bytes);
    heap.word(out.page).publish(word);
}

// The caller owns the busy page; its bytes are safe in a blob, or zero. In place they have to be dropped
// first.
void leave(Heap& heap, OutgoingPage& out, PageWord word) noexcept {
    if (out.in_place) os::drop_pages(heap.address_of(out.page), page_bytes);
    heap.word(out.page).publish(word);
}

Away put_away_zero(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    OutgoingPage& out = lane.out[index];
    if (!claim_limbo(heap, lane, index)) return Away::taken_back;
    drop_kept(heap, out.word);
    leave(heap, out, PageWord().with_written(true));
    heap.statistics.demotions_zero.add();
    return Away::fresh;
}

Away put_away_unchanged(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    OutgoingPage& out = lane.out[index];
    if (!claim_limbo(heap, lane, index)) return Away::taken_back;
    heap.statistics.kept_blob_bytes.subtract(heap.far.bytes(out.word).size());
    heap.statistics.far_pages.add();
    leave(heap, out, out.word.with(PageState::far).with_stamp(heap.epoch()).with_written(false));
    heap.statistics.demotions.add();
    heap.statistics.demotions_unchanged.add();
    heap.kept_outcomes.unchanged();
    heap.recompressor.something_far();
    return Away::far;
}

// To be passed over for long.
PageWord hopeless(const Heap& heap, PageWord word) noexcept {
    return word.with_incompressible().with_skip(skip_max).with_stamp(heap.epoch());
}

Away put_away_compressed(Heap& heap, EvictLane& lane, unsigned index,
                         const FarTier::Encoded& encoded) noexcept {
    OutgoingPage& out = lane.out[index];
    const std::span<const std::byte> blob = encoded.blob;
    if (!claim_limbo(heap, lane, index)) {
        heap.far.discard(encoded);
        return Away::taken_back;
    }
    if (out.word.place() != cxl::no_blob) heap.kept_outcomes.changed();
    drop_kept(heap, out.word);
    const cxl::BlobRef ref = blob.empty() ? cxl::no_blob : heap.far.place(blob);
    if (ref == cxl::no_blob) {
        heap.far.discard(encoded);
        (blob.empty() ? heap.statistics.incompressible : heap.statistics.far_full).add();
        return_near(heap, out, blob.empty() ? hopeless(heap, out.word) : out.word.without_blob());
        return blob.empty() ? Away::kept_near : Away::no_room;
    }
    PageWord word = out.word.with_blob(heap.far.own_store(), ref, encoded.dictionary).with_skip(0);
    if (encoded.is_final) word = word.with_dense();
    if (is_copied(heap, out)) {
        heap.statistics.kept_blob_bytes.add(heap.far.bytes(word).size());
        leave_unwritten(lane, out.page, heap.word(out.page), word);
        return Away::unwritten;
    }
    heap.statistics.far_pages.add();
    const bool written = out.word.written() || out.word.place() != cxl::no_blob;
    leave(heap, out, word.with(PageState::far).with_stamp(heap.epoch()).with_written(written));
    heap.statistics.demotions.add();
    heap.recompressor.something_far();
    return Away::far;
}

std::span<const std::byte> contents_of(const OutgoingPage& out) noexcept {
    return {out.contents, page_bytes};
}

std::span<std::byte> room_for_blob(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    return {lane.blob + index * EvictLane::blob_bytes_max, heap.far.worthwhile_bytes()};
}

bool is_zero(const OutgoingPage& out) noexcept {
    std::uint64_t repeated = 1;
    return compress::is_same_filled(contents_of(out), &repeated) && repeated == 0;
}

// Does the page's kept blob still tell the truth?
bool is_unchanged(Heap& heap, const OutgoingPage& out, const compress::ContentHash& hash) noexcept {
    if (out.word.place() == cxl::no_blob) return false;
    compress::ContentHash kept;
    return heap.far.load(out.word, [&] { kept = heap.far.stored_hash(out.word, out.page); }) && kept == hash;
}

FarTier::Encoded encode(Heap& heap, EvictLane& lane, const OutgoingPage& out,
                        const compress::ContentHash& hash) noexcept {
    const std::span<std::byte> room = room_for_blob(heap, lane, 0);
    if (const BufferCodecs::Entry* const own = heap.codec_of(out.page))
        return FarTier::encode_by(own->choice, contents_of(out), hash, room,
                                  own->scratch(lane.first_slot / batch_pages));
    return heap.far.encode(contents_of(out), hash, room, lane.scratch);
}

// An accelerator takes what has to be compressed of the batch at once, while the pages stay in limbo.
void encode_ahead(Heap& heap, EvictLane& lane) noexcept {
    compress::iaa::Accelerator* const accelerator = heap.offload.accelerator();
    if (accelerator == nullptr) return;
    compress::EncodeJob jobs[batch_pages];
    unsigned owners[batch_pages];
    unsigned count = 0;
    for (unsigned index = 0; index < lane.out_count; ++index) {
        OutgoingPage& out = lane.out[index];
        if (out.contents == nullptr || heap.codec_of(out.page) != nullptr || is_zero(out)) continue;
        out.hash = heap.far.key().hash(contents_of(out));
        if (is_unchanged(heap, out, out.hash)) continue;
        jobs[count] = {contents_of(out), out.hash, room_for_blob(heap, lane, index), 0};
        owners[count++] = index;
    }
    compress::encode(std::span(jobs, count), heap.far.codec(), lane.scratch, *accelerator);
    for (unsigned i = 0; i < count; ++i) {
        OutgoingPage& out = lane.out[owners[i]];
        out.encoded = true;
        out.blob = jobs[i].blob.first(jobs[i].blob_bytes);
    }
}

// It stays near, uncompressed. The blob it kept tells another truth.
Away put_back(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    OutgoingPage& out = lane.out[index];
    if (!claim_limbo(heap, lane, index)) return Away::taken_back;
    drop_kept(heap, out.word);
    return_near(heap, out, out.word.without_blob());
    return Away::kept_near;
}

Away put_away(Heap& heap, EvictLane& lane, unsigned index, bool may_compress) noexcept {
    OutgoingPage& out = lane.out[index];
    if (out.encoded) return put_away_compressed(heap, lane, index, {out.blob});
    if (is_zero(out)) return put_away_zero(heap, lane, index);
    const compress::ContentHash hash = heap.far.key().hash(contents_of(out));
    if (is_unchanged(heap, out, hash)) return put_away_unchanged(heap, lane, index);
    if (!may_compress) return put_back(heap, lane, index);
    return put_away_compressed(heap, lane, index, encode(heap, lane, out, hash));
}

// A taker-back may still be copying from our staging page: it is done when the page is no longer busy.
void wait_until_copied(Heap& heap, std::uint64_t page) noexcept {
    os::Backoff backoff;
    while (heap.word(page).load().state() == PageState::busy) backoff.wait();
}

// Now and then the evictor gives back what slabs became empty, though threads may make room themselves.
void count_evicted(Heap& heap, unsigned pages) noexcept {
    const unsigned epoch = heap.epoch();
    heap.evicted.fetch_add(pages, std::memory_order_relaxed);
    if (heap.epoch() != epoch) heap.near.wake_evictor();
}

// Everything in the lane goes where it belongs, and the staging pages are given back. How many left DRAM.
struct Cleared {
    unsigned left = 0;   // far or fresh now
    unsigned fulls = 0;  // pages the node had no room for
};
// After `fulls_max` such pages no other is compressed in vain: a full node has room now and then, for blobs
// of some sizes.
Cleared clear(Heap& heap, EvictLane& lane, Evicting who, unsigned fulls_max) noexcept {
    Cleared cleared;
    unsigned staged_end = 0;
    unsigned end = 0;
    if (who != Evicting::handler) encode_ahead(heap, lane);  // no fault waits for a device
    for (unsigned index = 0; index < lane.out_count; ++index) {
        OutgoingPage& out = lane.out[index];
        if (out.contents == nullptr) continue;
        const Away away = put_away(heap, lane, index, cleared.fulls < fulls_max);
        heap.statistics.limbo_pages.subtract(1);
        cleared.left += away == Away::far || away == Away::fresh ? 1 : 0;
        cleared.fulls += away == Away::no_room ? 1 : 0;
        end = index + 1;
        if (!is_copied(heap, out)) staged_end = end;
    }
    cleared.left += drop_unwritten(heap, lane);
    for (unsigned index = 0; index < end; ++index) wait_until_copied(heap, lane.out[index].page);
    if (staged_end != 0) os::drop_pages(lane.staging, staged_end * page_bytes);
    lane.out_count = 0;
    heap.near.discharge(cleared.left);
    count_evicted(heap, cleared.left);
    if (cleared.left != 0) heap.near.rested_well();
    return cleared;
}

// Takes the page if it is near. With an empty lane it waits, bounded, for a page in transit.
void add_if_near(Heap& heap, EvictLane& lane, std::uint64_t page) noexcept {
    if (is_under_our_feet(heap, page)) return;
    for (os::Backoff backoff; backoff.rounds() < 8192; backoff.wait()) {
        const PageWord word = heap.word(page).load();
        if (word.state() == PageState::near && word.pinned()) {
            heap.statistics.refused_pinned.add();
            return;
        }
        if (word.state() == PageState::near) {
            if (take(heap, lane, page, word)) return;
        } else if (word.state() != PageState::busy || !lane.is_empty()) {
            return;
        }
    }
}

}  // namespace

void trim(Heap& heap) noexcept {
    heap.far.store()->trim();
    share_total(heap);
}

void share_total(Heap& heap) noexcept {
    if (heap.near.has_total()) heap.near.set_far((heap.far.physical_bytes() + page_bytes - 1) / page_bytes);
}

void drop_kept(Heap& heap, PageWord word) noexcept {
    if (word.place() == cxl::no_blob) return;
    heap.statistics.kept_blob_bytes.subtract(heap.far.bytes(word).size());
    heap.far.drop(word);
}

// The node is nearly full: kept blobs go first. A bounded piece of the heap at each call, by whoever has the
// hand.
void drop_kept_blobs(Heap& heap) noexcept {
    constexpr std::uint64_t looked_at_max = os::stepped ? 1 : 16384;
    if (heap.statistics.kept_blob_bytes.value() == 0) return;
    if (heap.hand_taken.exchange(true, std::memory_order_acquire)) return;
    for (std::uint64_t looked_at = 0; looked_at < looked_at_max; ++looked_at) {
        const std::uint64_t chunk = heap.chunk_of(heap.keep_hand);
        const std::uint64_t end = heap.end_of_chunk(chunk);
        if (heap.chunks.state(chunk) != ChunkState::tracked) {
            heap.keep_hand = end;
        } else if (!heap.near_map.may_be_near(heap.keep_hand)) {
            heap.keep_hand = heap.near_map.next(heap.keep_hand, end);
        } else {
            AtomicPageWord& at = heap.word(heap.keep_hand++);
            const PageWord word = at.load();
            if (word.state() == PageState::near && word.place() != cxl::no_blob &&
                word.store() == heap.far.own_store() && at.make_busy(word)) {
                drop_kept(heap, word);
                at.publish(word.without_blob());
            }
        }
        if (heap.keep_hand >= heap.page_count) heap.keep_hand = 0;
    }
    heap.hand_taken.store(false, std::memory_order_release);
}

unsigned evict_batch(Heap& heap, EvictLane& lane, Evicting who) noexcept {
    if (heap.near.is_resting()) return 0;
    pick(heap, lane, who);
    take_out(heap, lane);
    const Cleared cleared = clear(heap, lane, who, 1);
    share_total(heap);
    if (heap.far.is_nearly_full()) drop_kept_blobs(heap);
    if (cleared.left == 0 && cleared.fulls != 0) heap.near.rest();
    return cleared.left;
}

void make_room(Heap& heap, Evicting who) noexcept {
    // Enough for the hand to pass over warm pages as often as they may be passed over.
    constexpr unsigned fruitless_max = 64;
    for (unsigned fruitless = 0; heap.near.past_hard() && fruitless < fruitless_max;) {
        if (heap.near.is_resting() || is_forking_here()) return;
        LentEvictLane lane(heap.evict_lanes);
        heap.statistics.evictions_direct.add();
        if (evict_batch(heap, *lane, who) != 0) continue;
        if (!heap.near.past_limit()) return;  // the evictor is at it
        // Everything is pinned, incompressible or in use: looking again at each fault would find no more.
        if (++fruitless == fruitless_max) heap.near.rest();
    }
}

int demote(Heap& heap, std::uint64_t first, std::uint64_t pages, std::uint64_t* done) noexcept {
    LentEvictLane lane(heap.evict_lanes);
    bool node_full = false;
    for (std::uint64_t page = first; page < first + pages;) {
        if (!track_chunk(heap, heap.chunk_of(page))) {
            ++page;
            continue;
        }
        for (; page < first + pages && !is_full(heap, *lane); ++page) {
            if (heap.chunks.state(heap.chunk_of(page)) != ChunkState::tracked) break;
            // A page that just came near may still be its handler's: wait for it, but never while owning
            // others.
            if (heap.word(page).load().state() == PageState::busy && !lane->is_empty()) break;
            add_if_near(heap, *lane, page);
        }
        take_out(heap, *lane);
        node_full |= clear(heap, *lane, Evicting::other, batch_pages).fulls != 0;
        share_total(heap);
        if (node_full && heap.far.is_nearly_full()) drop_kept_blobs(heap);
    }
    *done = 0;
    for (std::uint64_t page = first; page < first + pages; ++page) {
        if (heap.chunks.state(heap.chunk_of(page)) != ChunkState::tracked)
            continue;  // its words tell nothing
        os::Backoff backoff;
        PageState state = heap.word(page).load().state();
        for (; (state == PageState::busy || state == PageState::limbo) && backoff.rounds() < 4096;
             state = heap.word(page).load().state())
            backoff.wait();
        *done += state == PageState::far || state == PageState::fresh ? 1 : 0;
    }
    return node_full ? ENOSPC : 0;
}

}  // namespace pnode
