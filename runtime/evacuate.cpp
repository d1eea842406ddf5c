// What leaves a node because it must: more is held than the device can (converge), or the node is closed
// (evacuate_node). And what comes near because somebody asked (serve_nominations).
//
// No lock is held while pages come near: faults, demotion, reports of ratio and pressure go on. Pages are
// brought by resolve(), so a page that faults meanwhile has one winner like any other.

#include <algorithm>
#include <cerrno>

#include "runtime/heap.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {
namespace {

constexpr std::uint64_t piece_pages = 512;

// A page that somebody had in hand when its turn came is passed over, and found when the heaps are stopped:
// by then it is in place, and the next attempt meets it.
constexpr unsigned evacuations_max = 8;

enum class Moved : std::uint8_t { nothing, left, no_room };

// One page: a far one comes near, a kept blob is dropped. Blobs of ancestors stay: they are not on our node.
Moved move_off(Heap& heap, std::uint64_t page, ResolveLane& lane) noexcept {
    const PageWord word = heap.word(page).load();
    if (word.place() == cxl::no_blob || word.store() != heap.far.own_store()) return Moved::nothing;
    if (word.state() == PageState::near) {
        if (!heap.word(page).make_busy(word)) return Moved::nothing;
        drop_kept(heap, word);
        heap.word(page).publish(word.without_blob());
        return Moved::left;
    }
    if (word.state() != PageState::far) return Moved::nothing;
    if (!heap.near.fits(1)) return Moved::no_room;
    resolve(heap, page, FaultKind::asked, lane);
    heap.far.node()->counters.evacuated_pages.fetch_add(1, std::memory_order_relaxed);
    return Moved::left;
}

struct Piece {
    std::uint64_t left = 0;
    bool no_room = false;
    bool wrapped = false;
};

// The next piece of the heap from `hand` on. A fork waits for a piece, not for all of it.
Piece move_piece_off(Heap& heap, std::uint64_t* hand) noexcept {
    const Inside inside(heap.operations);
    LentResolveLane lane(heap.resolve_lanes);
    Piece piece;
    for (std::uint64_t looked_at = 0; looked_at < piece_pages && !piece.wrapped; ++looked_at) {
        const std::uint64_t chunk = heap.chunk_of(*hand);
        if (heap.chunks.state(chunk) != ChunkState::tracked) {
            *hand = (chunk + 1) * heap.chunk_pages;
        } else {
            const Moved moved = move_off(heap, *hand, *lane);
            piece.left += moved == Moved::left ? 1 : 0;
            piece.no_room |= moved == Moved::no_room;
            ++*hand;
        }
        piece.wrapped = *hand >= heap.page_count;
    }
    return piece;
}

// Once round the heap, or until `enough`; pages that left.
template <class Enough>
Piece move_all_off(Heap& heap, Enough enough) noexcept {
    Piece sum;
    std::uint64_t hand = 0;
    while (!sum.wrapped && !enough()) {
        const Piece piece = move_piece_off(heap, &hand);
        sum.left += piece.left;
        sum.no_room |= piece.no_room;
        sum.wrapped = piece.wrapped;
    }
    return sum;
}

bool holds_blobs(Heap& heap) noexcept {
    for (std::uint64_t page = 0; page < heap.page_count;) {
        if (heap.chunks.state(heap.chunk_of(page)) != ChunkState::tracked) {
            page = (heap.chunk_of(page) + 1) * heap.chunk_pages;
            continue;
        }
        const PageWord word = heap.word(page++).load();
        if (word.place() != cxl::no_blob && word.store() == heap.far.own_store()) return true;
    }
    return false;
}

// Everything off, in a bounded number of rounds: what is in transit in one has arrived in the next.
const char* empty(Heap& heap) noexcept {
    constexpr unsigned rounds_max = 64;
    if (!heap.is_active()) return nullptr;
    for (unsigned round = 0; round < rounds_max; ++round) {
        const Piece moved = move_all_off(heap, [] { return false; });
        if (moved.no_room)
            return "the near limit has no room for what the node holds: raise it, or free some";
        if (moved.left != 0) continue;
        const Inside inside(heap.operations);
        if (heap.leases.expire(heap.far.node()->store()) != 0)
            return "a forked child still reads from the node: wait for it";
        return nullptr;
    }
    return "pages keep coming back: nothing else may place on the node";
}

// Everybody out of the middle of anything, in the order in which fork does it (fork.cpp).
class HeapsStopped {
  public:
    HeapsStopped(Heap** heaps, unsigned count) noexcept : heaps_(heaps), count_(count) {
        lock_heaps();
        for (unsigned index = 0; index < count_; ++index) {
            heaps_[index]->activation_lock.lock();
            heaps_[index]->operations.shut_and_wait();
            heaps_[index]->serving.shut_and_wait();
        }
    }
    ~HeapsStopped() {
        for (unsigned index = 0; index < count_; ++index) {
            heaps_[index]->serving.open();
            heaps_[index]->operations.open();
            heaps_[index]->activation_lock.unlock();
        }
        unlock_heaps();
    }
    HeapsStopped(const HeapsStopped&) = delete;
    HeapsStopped& operator=(const HeapsStopped&) = delete;

  private:
    Heap** const heaps_;
    const unsigned count_;
};

}  // namespace

// Ladder: kept blobs and empty slabs go, then pages come near within the near limit, then the host is told.
bool converge(Heap& heap) noexcept {
    // The node is looked up inside the gate each time: it may be closed under its heap, which then has
    // another.
    const auto settled = [&] {
        const Inside inside(heap.operations);
        cxl::Node& node = *heap.far.node();
        if (!node.gate().is_shut_for(cxl::GateReason::converging)) return true;
        node.store().trim();
        return node.settle() || heap.stop.load(std::memory_order_relaxed);
    };
    if (settled()) return false;
    const Piece moved = move_all_off(heap, settled);
    if (settled()) return false;
    if (moved.left != 0) return true;
    cxl::Node* node = nullptr;
    {
        const Inside inside(heap.operations);
        node = heap.far.node();
    }
    node->tell_failure();
    return true;
}

bool serve_nominations(Heap& heap) noexcept {
    if (heap.nominations.is_empty()) return false;
    const Inside inside(heap.operations);
    LentResolveLane lane(heap.resolve_lanes);
    for (unsigned served = 0; served < Nominations::capacity; ++served) {
        if (heap.nominations.is_empty()) return false;
        if (!heap.near.fits(1)) break;
        if (!heap.prefetch_budget.take(os::now_ns())) return true;
        std::uint64_t page = 0;
        heap.nominations.take(&page);
        if (page >= heap.page_count || heap.chunks.state(heap.chunk_of(page)) != ChunkState::tracked ||
            heap.word(page).load().state() != PageState::far)
            continue;
        if (resolve(heap, page, FaultKind::asked, *lane) == Resolved::served)
            heap.statistics.prefetches.add();
    }
    // No room: hints that wait are worth nothing later.
    for (std::uint64_t page = 0; heap.nominations.take(&page);) heap.statistics.prefetches_dropped.add();
    return false;
}

int evacuate_node(cxl::Node& node, std::string* why) {
    cxl::NodeUser* users[cxl::Node::users_max];
    Heap* heaps[cxl::Node::users_max];
    std::unique_ptr<cxl::Node> nowhere[cxl::Node::users_max];
    const unsigned count = node.copy_users(users);
    for (unsigned index = 0; index < count; ++index) {
        heaps[index] = static_cast<Heap*>(users[index]);
        if (int error = cxl::Node::open("memory:64K", &nowhere[index], why)) return error;
        nowhere[index]->gate().shut(cxl::GateReason::teardown);
    }
    const os::SignalsBlocked signals;
    for (unsigned attempt = 0; attempt < evacuations_max; ++attempt) {
        for (unsigned index = 0; index < count; ++index) {
            if (const char* what = empty(*heaps[index])) {
                *why = what;
                return EBUSY;
            }
        }
        const HeapsStopped stopped(heaps, count);
        if (std::any_of(heaps, heaps + count,
                        [](Heap* heap) { return heap->is_active() && holds_blobs(*heap); }))
            continue;
        for (unsigned index = 0; index < count; ++index) heaps[index]->far.leave(std::move(nowhere[index]));
        return 0;
    }
    *why = "pages kept going to the node while it was emptied: close it again";
    return EBUSY;
}

}  // namespace pnode
