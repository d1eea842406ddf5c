#include <algorithm>
#include <mutex>

#include "runtime/heap.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {
namespace {

struct Walk {
    std::uint64_t near = 0;
    std::uint64_t far = 0;
    std::uint64_t pinned = 0;
    std::uint64_t unwatched = 0;
    // Blobs that need the dictionary in the slot, and blocks: in parts of a whole, for each of a block's
    // words is a part of it.
    static constexpr std::uint64_t whole = 720'720;  // what 1 to 16 divide
    std::uint64_t naming[Dictionaries::slots] = {};
    std::uint64_t blocks = 0;
    const char* wrong = nullptr;
};

std::uint64_t share_of_blob(Heap& heap, PageWord word) noexcept {
    if (!word.is_block()) return Walk::whole;
    const unsigned alive = heap.far.pages_alive(word);
    return alive == 0 || alive > word.pages() ? 0 : Walk::whole / alive;
}

void look_at(Heap& heap, std::uint64_t page, Walk& walk) noexcept {
    const PageWord word = heap.word(page).load();
    const bool allocated = heap.spans.is_allocated(page, 1);
    switch (word.state()) {
        case PageState::fresh:
        case PageState::poisoned:
            break;
        case PageState::near:
            ++walk.near;
            if (!heap.near_map.may_be_near(page) ||
                (!word.incompressible() && !heap.near_map.may_be_takeable(page)))
                walk.wrong = "heap: the hand would not find a near page";
            break;
        case PageState::far:
            ++walk.far;
            break;
        case PageState::busy:
            walk.wrong = "heap: a page is busy in an idle heap";
            break;
        case PageState::limbo:
            walk.wrong = "heap: a page is in limbo in an idle heap";
            break;
    }
    if (word.state() == PageState::far && word.place() == cxl::no_blob)
        walk.wrong = "heap: a far page has no blob";
    if (word.state() == PageState::far && !allocated)
        walk.wrong = "heap: a page that belongs to nobody is far";
    if (word.pinned() != (heap.pins[page].load(std::memory_order_relaxed) != 0))
        walk.wrong = "heap: a pin and its count disagree";
    if (word.dictionary() != 0 && word.place() == cxl::no_blob)
        walk.wrong = "heap: a page without a blob names a dictionary";
    const std::uint64_t share = share_of_blob(heap, word);
    if (share == 0) walk.wrong = "heap: a block has more pages than are counted";
    if (word.dictionary() != 0) walk.naming[word.dictionary() - 1] += share;
    if (word.is_block()) walk.blocks += share;
    walk.pinned += word.pinned() ? 1 : 0;
}

// Of one that no word names any more nothing is found.
bool are_counted(const Dictionaries& dictionaries, const Walk& walk) noexcept {
    for (unsigned slot = 0; slot < Dictionaries::slots; ++slot) {
        const bool is_current =
            dictionaries.current() != nullptr && Dictionaries::name_of(*dictionaries.current()) == slot + 1;
        if (dictionaries.references(slot) * Walk::whole != walk.naming[slot] + (is_current ? Walk::whole : 0))
            return false;
    }
    return true;
}

}  // namespace

const char* validate(Heap& heap) noexcept {
    const os::SignalsBlocked signals;
    const std::lock_guard activation(heap.activation_lock);  // a change of the engine shuts the gates too
    heap.operations.shut_and_wait();
    heap.serving.shut_and_wait();
    Walk walk;
    {
        const std::lock_guard lock(heap.span_lock);
        walk.wrong = heap.spans.validate();
    }
    for (std::uint64_t page = 0; page < heap.page_count && walk.wrong == nullptr;) {
        const std::uint64_t chunk = heap.chunk_of(page);
        if (heap.chunks.state(chunk) == ChunkState::tracked) {
            look_at(heap, page++, walk);
        } else {
            walk.unwatched += heap.chunks.allocated_pages(chunk);
            page += heap.chunk_pages;
        }
    }
    if (walk.wrong == nullptr && walk.near + walk.unwatched != heap.near.pages())
        walk.wrong = "heap: the near ledger is off";
    if (walk.wrong == nullptr && walk.far != heap.statistics.far_pages.value())
        walk.wrong = "heap: far pages are miscounted";
    if (walk.wrong == nullptr && walk.pinned != heap.statistics.pinned_pages.value())
        walk.wrong = "heap: pins are miscounted";
    if (walk.wrong == nullptr && !are_counted(heap.far.dictionaries(), walk))
        walk.wrong = "heap: blobs of a dictionary are miscounted";
    if (walk.wrong == nullptr && walk.blocks != (heap.far.blocks(4) + heap.far.blocks(16)) * Walk::whole)
        walk.wrong = "heap: pages of blocks are miscounted";
    if (walk.wrong == nullptr && heap.far.is_open()) walk.wrong = heap.far.store()->validate();
    heap.serving.open();
    heap.operations.open();
    return walk.wrong;
}

}  // namespace pnode
