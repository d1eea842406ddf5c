#include "cxl/slab_pool.h"

#include <algorithm>
#include <bit>
#include <mutex>

namespace pnode::cxl {

namespace {
constexpr std::uint64_t whole_chunk = ~std::uint64_t{0};
}

SlabPool::SlabPool(Region& region, std::size_t region_bytes_max)
    : physical_bytes_max(region.size_bytes()),
      region_(region),
      part_count_(static_cast<SlabIndex>(std::min(region.size_bytes(), region_bytes_max) / part_bytes)),
      chunk_count_(static_cast<ChunkIndex>((part_count_ + parts_per_chunk - 1) / parts_per_chunk)),
      chunks_(chunk_count_) {}

SlabPool::Mask SlabPool::slab_at(SlabIndex slab, unsigned parts) noexcept {
    return (whole_chunk >> (parts_per_chunk - parts)) << (slab % parts_per_chunk);
}

// A bit for each place where a slab of so many parts fits: at multiples of its size, all of them free.
SlabPool::Mask SlabPool::starts_of_slabs(Mask parts_free, unsigned parts) noexcept {
    constexpr Mask multiples[] = {whole_chunk, 0x5555555555555555, 0x1111111111111111, 0x0101010101010101};
    if (parts == parts_per_chunk) return parts_free == whole_chunk ? 1 : 0;
    for (unsigned run = 1; run < parts; run *= 2) parts_free &= parts_free >> run;
    return parts_free & multiples[std::countr_zero(parts)];
}

SlabPool::Mask SlabPool::free_parts(const Chunk& chunk) noexcept {
    return ~(chunk.taken | chunk.discarding);
}

SlabPool::List SlabPool::list_for(const Chunk& chunk) noexcept {
    const Mask free = free_parts(chunk);
    if (free == 0) return unlisted;
    std::size_t largest = slab_parts.size() - 1;
    while (starts_of_slabs(free, slab_parts[largest]) == 0) --largest;
    return static_cast<List>(((free & chunk.dirty) != 0 ? first_dirty : first_clean) + largest);
}

void SlabPool::unlink(Chunk& chunk) noexcept {
    if (chunk.list == unlisted) return;
    (chunk.previous != 0 ? chunks_[chunk.previous - 1].next : heads_[chunk.list]) = chunk.next;
    if (chunk.next != 0) chunks_[chunk.next - 1].previous = chunk.previous;
    chunk.list = unlisted;
}

// A chunk's list follows from its masks alone: call this after every change to them.
void SlabPool::relist(ChunkIndex index) noexcept {
    Chunk& chunk = chunks_[index];
    const List list = list_for(chunk);
    if (list == chunk.list) return;
    unlink(chunk);
    if (list == unlisted) return;
    chunk.list = list;
    chunk.previous = 0;
    chunk.next = heads_[list];
    if (chunk.next != 0) chunks_[chunk.next - 1].previous = index + 1;
    heads_[list] = index + 1;
}

// Lists the next chunk that was never used. Parts beyond the region's end are taken for good.
bool SlabPool::open_chunk() noexcept {
    if (chunks_opened_ == chunk_count_) return false;
    const ChunkIndex index = chunks_opened_++;
    const SlabIndex parts = std::min(parts_per_chunk, part_count_ - index * parts_per_chunk);
    chunks_[index].taken = ~slab_at(0, parts);
    relist(index);
    return true;
}

// A chunk with room for such a slab, plus one, dirty before clean before unused; 0 for none.
SlabPool::ChunkIndex SlabPool::find(unsigned parts) noexcept {
    std::size_t smallest = 0;
    while (slab_parts[smallest] != parts) ++smallest;
    do {
        for (const List first : {first_dirty, first_clean}) {
            for (std::size_t size = smallest; size < slab_parts.size(); ++size) {
                if (heads_[first + size] != 0) return heads_[first + size];
            }
        }
    } while (open_chunk());
    return 0;
}

bool SlabPool::claim(Chunk& chunk, Mask parts) noexcept {
    const auto clean = static_cast<std::uint64_t>(std::popcount(parts & ~chunk.dirty));
    const std::uint64_t physical = physical_bytes() + clean * part_bytes;
    if (physical > physical_bytes_max.load(std::memory_order_relaxed)) return false;
    physical_bytes_.store(physical, std::memory_order_relaxed);
    chunk.taken |= parts;
    chunk.dirty |= parts;
    return true;
}

SlabIndex SlabPool::take(unsigned parts) noexcept {
    const std::lock_guard guard(lock_);
    const ChunkIndex found = find(parts);
    if (found == 0) return no_slab;
    const ChunkIndex index = found - 1;
    Chunk& chunk = chunks_[index];
    const Mask free = free_parts(chunk);
    Mask starts = starts_of_slabs(free & chunk.dirty, parts);
    if (starts == 0) starts = starts_of_slabs(free, parts);
    const SlabIndex slab = index * parts_per_chunk + static_cast<unsigned>(std::countr_zero(starts));
    if (!claim(chunk, slab_at(slab, parts))) return no_slab;
    relist(index);
    return slab;
}

void SlabPool::give(SlabIndex slab, unsigned parts) noexcept {
    const std::lock_guard guard(lock_);
    const ChunkIndex index = slab / parts_per_chunk;
    chunks_[index].taken &= ~slab_at(slab, parts);
    relist(index);
}

// First fit: direct buffers are few and live long.
SlabIndex SlabPool::take_chunks(unsigned chunks) noexcept {
    const std::lock_guard guard(lock_);
    unsigned run = 0;
    for (ChunkIndex index = 0; index < chunk_count_ && run < chunks; ++index) {
        while (index >= chunks_opened_ && open_chunk()) continue;
        run = free_parts(chunks_[index]) == whole_chunk ? run + 1 : 0;
        if (run != chunks) continue;
        const ChunkIndex first = index + 1 - chunks;
        for (ChunkIndex at = first; at <= index; ++at) {
            if (!claim(chunks_[at], whole_chunk)) {
                for (ChunkIndex undo = first; undo < at; ++undo) release_chunk(undo);
                return no_slab;
            }
            relist(at);
        }
        return first * parts_per_chunk;
    }
    return no_slab;
}

void SlabPool::release_chunk(ChunkIndex index) noexcept {
    chunks_[index].taken = 0;
    relist(index);
}

void SlabPool::give_chunks(SlabIndex slab, unsigned chunks) noexcept {
    const std::lock_guard guard(lock_);
    for (ChunkIndex index = slab / parts_per_chunk; chunks != 0; --chunks) release_chunk(index++);
}

void SlabPool::quarantine(SlabIndex first, SlabIndex end) noexcept {
    const std::lock_guard guard(lock_);
    for (SlabIndex part = first; part < std::min(end, part_count_); ++part) {
        const ChunkIndex index = part / parts_per_chunk;
        while (index >= chunks_opened_ && open_chunk()) continue;
        Chunk& chunk = chunks_[index];
        const Mask bit = slab_at(part, 1);
        if ((free_parts(chunk) & bit) == 0) continue;
        if ((chunk.dirty & bit) == 0)
            physical_bytes_.store(physical_bytes() + part_bytes, std::memory_order_relaxed);
        chunk.taken |= bit;
        chunk.dirty |= bit;
        chunk.quarantined |= bit;
        quarantined_bytes_.store(quarantined_bytes() + part_bytes, std::memory_order_relaxed);
        relist(index);
    }
}

void SlabPool::wipe() noexcept {
    for (ChunkIndex index = 0; index < chunks_opened_; ++index) {
        for (Mask left = chunks_[index].dirty; left != 0; left &= left - 1) {
            const auto part =
                index * std::size_t{parts_per_chunk} + static_cast<unsigned>(std::countr_zero(left));
            region_.clear(part * part_bytes, part_bytes);  // what is bad cannot be read either
        }
    }
}

// Chunks with the largest free runs first: the fewest calls for the most bytes.
std::size_t SlabPool::begin_discards(Discard* batch) noexcept {
    const std::lock_guard guard(lock_);
    std::size_t count = 0;
    for (List list = first_clean - 1; list >= first_dirty && count < trim_chunks_max;) {
        const ChunkIndex head = heads_[list];
        if (head == 0) {
            --list;
            continue;
        }
        Chunk& chunk = chunks_[head - 1];
        const Mask parts = free_parts(chunk) & chunk.dirty;
        chunk.discarding |= parts;
        relist(head - 1);
        batch[count++] = {parts, head - 1, false};
    }
    return count;
}

// One call to the region per run of neighbours.
bool SlabPool::discard(const Discard& entry) noexcept {
    Mask left = entry.parts;
    while (left != 0) {
        const auto first = static_cast<unsigned>(std::countr_zero(left));
        const auto parts = static_cast<unsigned>(std::countr_one(left >> first));
        const std::size_t offset = (entry.chunk * std::size_t{parts_per_chunk} + first) * part_bytes;
        if (region_.discard(offset, parts * part_bytes) != 0) return false;
        left &= ~slab_at(first, parts);
    }
    return true;
}

std::size_t SlabPool::finish_discards(const Discard* batch, std::size_t count) noexcept {
    const std::lock_guard guard(lock_);
    std::size_t discarded = 0;
    for (const Discard* entry = batch; entry != batch + count; ++entry) {
        Chunk& chunk = chunks_[entry->chunk];
        chunk.discarding &= ~entry->parts;
        if (entry->done) {
            chunk.dirty &= ~entry->parts;
            discarded += static_cast<std::size_t>(std::popcount(entry->parts)) * part_bytes;
        }
        relist(entry->chunk);
    }
    physical_bytes_.store(physical_bytes() - discarded, std::memory_order_relaxed);
    return discarded;
}

std::size_t SlabPool::trim() noexcept {
    const std::lock_guard one_at_a_time(trim_lock_);
    Discard batch[trim_chunks_max];
    const std::size_t count = begin_discards(batch);
    for (std::size_t i = 0; i < count; ++i) batch[i].done = discard(batch[i]);
    return finish_discards(batch, count);
}

bool SlabPool::is_taken(SlabIndex part) const noexcept {
    return (chunks_[part / parts_per_chunk].taken >> (part % parts_per_chunk) & 1) != 0;
}

bool SlabPool::is_quarantined(SlabIndex part) const noexcept {
    return (chunks_[part / parts_per_chunk].quarantined >> (part % parts_per_chunk) & 1) != 0;
}

const char* SlabPool::validate() const {
    std::uint64_t dirty_parts = 0;
    std::uint64_t listed = 0;
    for (ChunkIndex index = 0; index < chunks_opened_; ++index) {
        const Chunk& chunk = chunks_[index];
        if (chunk.discarding != 0) return "a part is being discarded by nobody";
        if (chunk.list != list_for(chunk)) return "a chunk is in the wrong list";
        if (chunk.list != unlisted) ++listed;
        for (SlabIndex part = index * parts_per_chunk;
             part < (index + 1) * parts_per_chunk && part < part_count_; ++part) {
            const bool dirty = (chunk.dirty >> (part % parts_per_chunk) & 1) != 0;
            if (is_taken(part) && !dirty) return "a taken part is not counted as physical";
            dirty_parts += dirty ? 1 : 0;
        }
    }
    for (List list = first_dirty; list < list_count; ++list) {
        ChunkIndex previous = 0;
        for (ChunkIndex link = heads_[list]; link != 0; link = chunks_[link - 1].next) {
            if (listed-- == 0) return "the lists of chunks have a cycle";
            if (chunks_[link - 1].list != list || chunks_[link - 1].previous != previous)
                return "a list of chunks is broken";
            previous = link;
        }
    }
    if (listed != 0) return "a chunk is in no list";
    return physical_bytes() == dirty_parts * part_bytes ? nullptr : "physical_bytes differs from the walk";
}

}  // namespace pnode::cxl
