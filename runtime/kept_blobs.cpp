// The blobs that near pages keep: dropped when they tell another truth, and first of all when the node fills.
#include "runtime/heap.h"

namespace pnode {

void drop_kept(Heap& heap, PageWord word) noexcept {
    if (word.place() == cxl::no_blob) return;
    heap.statistics.kept_blob_bytes.subtract(heap.far.bytes(word).size());
    heap.far.drop(word);
}

// The node is nearly full, where kept blobs go first, or they are too many under a total. A bounded piece of
// the heap at each call, by whoever has the hand.
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

}  // namespace pnode
