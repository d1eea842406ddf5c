// Relocating: contents go to other addresses of the heap, as mremap(2) moves them. Far pages by their words,
// near pages by UFFDIO_MOVE; nothing is decoded, compressed or, where the kernel can move pages, copied.

#include <algorithm>
#include <cerrno>

#include "runtime/heap.h"

namespace pnode {
namespace {

constexpr unsigned piece_pages = 64;

// A piece of both ranges, all its pages owned.
struct Piece {
    std::uint64_t from;
    std::uint64_t to;
    unsigned pages;
    ResolveLane* lane;            // taken before any page: who waits for a lane may wait for one of them
    PageWord words[piece_pages];  // of `from`, as they were
};

// Nobody has a word to tell. Where the kernel refuses the range as a whole: page by page.
int relocate_untracked(Heap& heap, std::uint64_t from, std::uint64_t to, std::uint64_t pages) noexcept {
    return os::move_page_tables(heap.address_of(to), heap.address_of(from), pages * page_bytes);
}

// DRAM is short or the address space is being changed: both pass.
void copy_page(Heap& heap, std::uint64_t to, const std::byte* contents) noexcept {
    std::size_t done = 0;
    for (os::Backoff backoff;;) {
        const int error = os::uffd_copy(heap.uffd.fd, heap.address_of(to), contents, page_bytes, &done);
        if (error == 0) return;
        if (error == EAGAIN) continue;  // the address space is being changed: it will be over soon
        if (error == EEXIST) os::drop_pages(heap.address_of(to), page_bytes);
        heap.near.wake_evictor();
        backoff.wait();
    }
}

// A near page that MOVE would not take: shared with a forked child, or there is no MOVE. False: it is not
// there.
bool copy_near(Heap& heap, const Piece& piece, unsigned index) noexcept {
    std::byte* const address = heap.address_of(piece.from + index);
    if (!os::uffd_is_occupied(heap.uffd.fd, address, heap.uffd_mode())) return false;
    copy_page(heap, piece.to + index, address);
    os::drop_pages(address, page_bytes);
    return true;
}

// With the page owned.
void forget_pins(Heap& heap, std::uint64_t page) noexcept {
    if (heap.pins[page].exchange(0, std::memory_order_relaxed) != 0) heap.statistics.pinned_pages.subtract(1);
}

// Pins that came since the call looked for them go where the page goes, as the kernel's locks do.
void publish(Heap& heap, const Piece& piece, unsigned index, PageWord word) noexcept {
    if (word.state() != PageState::fresh) heap.near_map.mark(piece.to + index);
    if (word.pinned())
        heap.pins[piece.to + index].store(
            heap.pins[piece.from + index].exchange(0, std::memory_order_relaxed), std::memory_order_relaxed);
    heap.word(piece.to + index).publish(word);
    heap.word(piece.from + index).publish(PageWord());
}

void near_is_absent(Heap& heap, const Piece& piece, unsigned index) noexcept {
    const PageWord word = piece.words[index];
    if (word.place() != cxl::no_blob) {
        heap.statistics.kept_blob_bytes.subtract(heap.far.bytes(word).size());
        heap.far.drop(word);
    }
    heap.near.discharge(1);
    if (word.pinned()) forget_pins(heap, piece.from + index);
    publish(heap, piece, index, PageWord());
}

// A run of near pages. How many of them are dealt with: as many as one call of the kernel did, or one.
unsigned relocate_near(Heap& heap, const Piece& piece, unsigned index, unsigned count) noexcept {
    std::size_t done = 0;
    int error = ENOSYS;
    if (heap.uffd.has(UFFD_FEATURE_MOVE))
        error = os::uffd_move(heap.uffd.fd, heap.address_of(piece.to + index),
                              heap.address_of(piece.from + index), count * page_bytes, &done);
    const auto moved = static_cast<unsigned>(done / page_bytes);
    for (unsigned at = index; at < index + moved; ++at) publish(heap, piece, at, piece.words[at]);
    if (error == 0 || moved != 0) return moved;
    // `to` was empty: what is there now has moved and was not counted (userfaultfd.h). A page that is at
    // neither the application dropped behind our back.
    if (copy_near(heap, piece, index) ||
        os::uffd_is_occupied(heap.uffd.fd, heap.address_of(piece.to + index), heap.uffd_mode())) {
        publish(heap, piece, index, piece.words[index]);
    } else {
        near_is_absent(heap, piece, index);
    }
    return 1;
}

// A page of a block is found in it by its number.
bool keeps_its_index(const Piece& piece, PageWord word) noexcept {
    return piece.from % word.pages() == piece.to % word.pages();
}

// Its evictor sees that the page was taken back, and frees the staging copy (resolve_limbo).
void relocate_limbo(Heap& heap, const Piece& piece, unsigned index) noexcept {
    const PageWord word = piece.words[index];
    const OutgoingPage& out = heap.slot(word.place());
    PageWord near_word = word.in_place() ? word.without_blob().with_in_place(false) : out.word;
    if (!keeps_its_index(piece, near_word)) {
        drop_kept(heap, near_word);
        near_word = near_word.without_blob();
    }
    heap.statistics.limbo_returns.add();
    copy_page(heap, piece.to + index, out.contents);
    if (word.in_place()) os::drop_pages(heap.address_of(piece.from + index), page_bytes);
    publish(heap, piece, index, near_word.with(PageState::near));
}

void relocate_piece(Heap& heap, const Piece& piece) noexcept {
    for (unsigned index = 0; index < piece.pages;) {
        const PageWord word = piece.words[index];
        if (word.state() == PageState::near) {
            unsigned count = 1;
            while (index + count < piece.pages && piece.words[index + count].state() == PageState::near)
                ++count;
            index += relocate_near(heap, piece, index, count);
            continue;
        }
        if (word.state() == PageState::limbo) {
            relocate_limbo(heap, piece, index);
        } else {
            publish(heap, piece, index, word);  // far, poisoned: all there is; fresh: nothing
        }
        ++index;
    }
}

// Where its index changes a page comes near first; a near one's kept blob goes. The recompressor may be at
// it, so each page is owned to see.
PageWord own_to_move(Heap& heap, const Piece& piece, std::uint64_t page) noexcept {
    for (;;) {
        const PageWord word = own(heap, page);
        if (word.state() != PageState::far && word.state() != PageState::near) return word;
        if (keeps_its_index(piece, word)) return word;
        if (word.state() == PageState::near) {
            drop_kept(heap, word);
            return word.without_blob();
        }
        heap.word(page).publish(word);
        if (resolve(heap, page, FaultKind::asked, *piece.lane) != Resolved::gone) continue;
        // Unmapped behind our back, and the contents with it.
        const PageWord left = own(heap, page);
        if (left.state() != PageState::far) return left;
        heap.far.drop(left);
        heap.statistics.far_pages.subtract(1);
        return PageWord();
    }
}

void own_range(Heap& heap, const Piece& piece, std::uint64_t first, PageWord* words) noexcept {
    // However a page moves, it arrives without write protection.
    for (unsigned index = 0; index < piece.pages; ++index) {
        words[index] = own_to_move(heap, piece, first + index);
        if (words[index].state() == PageState::near) words[index] = words[index].with_write_protected(false);
    }
}

// What was put there since `to` was released is lost, as in mremap(2); it may have left for the node since.
void drop_target(Heap& heap, const Piece& piece, const PageWord* words) noexcept {
    std::uint64_t far = 0;
    for (unsigned index = 0; index < piece.pages; ++index) {
        const PageState state = words[index].state();
        if (state == PageState::near || state == PageState::limbo)
            os::drop_pages(heap.address_of(piece.to + index), page_bytes);
        heap.near.discharge(drop_contents(heap, words[index], &far));
        if (words[index].pinned()) forget_pins(heap, piece.to + index);
    }
    heap.far_room_made(far);
}

void relocate_tracked(Heap& heap, std::uint64_t from, std::uint64_t to, std::uint64_t pages) noexcept {
    const LentResolveLane lane(heap.far.may_have_blocks() ? &heap.resolve_lanes.take() : nullptr);
    for (std::uint64_t done = 0; done < pages; done += piece_pages) {
        Piece piece{from + done,
                    to + done,
                    static_cast<unsigned>(std::min<std::uint64_t>(pages - done, piece_pages)),
                    lane.get(),
                    {}};
        PageWord target[piece_pages];
        if (from < to) own_range(heap, piece, piece.from, piece.words);
        own_range(heap, piece, piece.to, target);
        if (from > to) own_range(heap, piece, piece.from, piece.words);
        drop_target(heap, piece, target);
        relocate_piece(heap, piece);
        const std::uint64_t bytes = piece.pages * page_bytes;
        os::uffd_wake(heap.uffd.fd, heap.address_of(piece.to), bytes);
        os::uffd_wake(heap.uffd.fd, heap.address_of(piece.from), bytes);
    }
}

bool track_all(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    for (std::uint64_t chunk = heap.chunk_of(first); chunk <= heap.chunk_of(first + pages - 1); ++chunk) {
        if (!track_chunk(heap, chunk)) return false;
    }
    return true;
}

}  // namespace

int relocate(Heap& heap, std::uint64_t from, std::uint64_t to, std::uint64_t pages) noexcept {
    {
        // Two claims of one chunk by one thread would wait for each other: so one that spans both ranges'
        // ends where they meet.
        const std::uint64_t low = std::min(from, to);
        const std::uint64_t high = std::max(from, to);
        const bool meet = heap.chunk_of(low + pages - 1) >= heap.chunk_of(high);
        const ChunksClaimed lower(heap, low, meet ? high + pages - low : pages);
        if (meet) {
            if (!lower.any_tracked() && relocate_untracked(heap, from, to, pages) == 0) return 0;
        } else {
            const ChunksClaimed higher(heap, high, pages);
            if (!lower.any_tracked() && !higher.any_tracked() &&
                relocate_untracked(heap, from, to, pages) == 0)
                return 0;
        }
    }
    if (!heap.is_active() || !track_all(heap, from, pages) || !track_all(heap, to, pages)) return ENOMEM;
    relocate_tracked(heap, from, to, pages);
    return 0;
}

}  // namespace pnode
