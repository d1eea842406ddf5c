// What becomes of a page in limbo: far without compressing where its kept blob still tells the truth, far in
// a new blob, fresh where it is all zeros, or near again.
//
// Nobody owns it while it is compressed: an access gets it back at once (resolve_limbo copies it from
// staging), and the evictor learns of it because its compare-and-swap from limbo fails.
#include <cerrno>

#include "runtime/eviction.h"

namespace pnode {
namespace {

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
        // Moved and not counted (userfaultfd.h)? Staging is asked, not `address`: that one others may read.
        if (error != 0 && !os::uffd_is_occupied(heap.uffd.fd, out.contents, UFFDIO_REGISTER_MODE_MISSING))
            error = 0;
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
    if (is_copied(heap, out)) {
        leave_unwritten(heap, lane, {.page = out.page, .word = out.word.with_written(false)});
        return Away::unwritten;
    }
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
    const bool written = out.word.written() || out.word.place() != cxl::no_blob;
    PageWord word = out.word.with_blob(heap.far.own_store(), ref, encoded.dictionary).with_skip(0);
    if (encoded.is_final) word = word.with_dense();
    if (is_copied(heap, out)) {
        heap.statistics.kept_blob_bytes.add(heap.far.bytes(word).size());
        leave_unwritten(heap, lane,
                        {.page = out.page,
                         .word = word.with_written(false),
                         .is_new = true,
                         .protected_late = out.protected_late,
                         .was_written = written});
        return Away::unwritten;
    }
    heap.statistics.far_pages.add();
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

// It stays near, uncompressed. The blob it kept tells another truth.
Away put_back(Heap& heap, EvictLane& lane, unsigned index) noexcept {
    OutgoingPage& out = lane.out[index];
    if (!claim_limbo(heap, lane, index)) return Away::taken_back;
    drop_kept(heap, out.word);
    return_near(heap, out, out.word.without_blob());
    return Away::kept_near;
}

}  // namespace

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

Away put_away(Heap& heap, EvictLane& lane, unsigned index, bool may_compress) noexcept {
    OutgoingPage& out = lane.out[index];
    if (out.encoded) return put_away_compressed(heap, lane, index, {out.blob});
    if (is_zero(out)) return put_away_zero(heap, lane, index);
    const compress::ContentHash hash = heap.far.key().hash(contents_of(out));
    if (is_unchanged(heap, out, hash)) return put_away_unchanged(heap, lane, index);
    if (!may_compress) return put_back(heap, lane, index);
    return put_away_compressed(heap, lane, index, encode(heap, lane, out, hash));
}

}  // namespace pnode
