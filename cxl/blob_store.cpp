#include "cxl/blob_store.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string_view>
#include <utility>

#include "cxl/packing_plan.h"
#include "cxl/size_classes.h"
#include "cxl/slab_pool.h"
#include "cxl/slot_tables.h"
#include "cxl/spin_lock.h"
#include "cxl/unmanaged.h"

// Locks, in the order in which they may be held together: size classes by index, the slot tables' lock, the
// pool's lock.

namespace pnode::cxl {

namespace {

constexpr SizeClasses classes = detail::make_size_classes(BlobStore::blob_bytes_max);
static_assert(classes.count < 128 && classes.last().bytes >= BlobStore::blob_bytes_max);
static_assert(classes.by_units.size() * unit_bytes > BlobStore::blob_bytes_max);
static_assert(BlobStore::region_bytes_min == 8 * part_bytes);
static_assert(BlobStore::region_bytes_max == (std::size_t{1} << blob_ref_bits) * unit_bytes);

unsigned class_for(std::size_t bytes) {
    return classes.by_units[(bytes + unit_bytes - 1) / unit_bytes];
}
bool is_blob_size(std::size_t bytes) {
    return bytes != 0 && bytes <= BlobStore::blob_bytes_max;
}

[[noreturn]] void die(std::string_view message) {
    // Nothing to be done when even this write fails.
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message.data(), message.size());
    std::abort();
}

// Slots this much larger may take a blob that moves.
unsigned end_of_larger(unsigned class_index) {
    unsigned end = class_index + 1;
    while (end < classes.count && classes.slot[end].bytes <= classes.slot[class_index].bytes * 5 / 4) ++end;
    return end;
}

bool has_bit(const std::uint64_t* words, unsigned bit) {
    return (words[bit / 64] >> (bit % 64) & 1) != 0;
}
void set_bit(std::uint64_t* words, unsigned bit) {
    words[bit / 64] |= std::uint64_t{1} << (bit % 64);
}
void clear_bit(std::uint64_t* words, unsigned bit) {
    words[bit / 64] &= ~(std::uint64_t{1} << (bit % 64));
}

// Written under a lock, read without: no read-modify-write is needed.
class Counter {
  public:
    void add(std::uint64_t n) noexcept { value_.store(get() + n, std::memory_order_relaxed); }
    void subtract(std::uint64_t n) noexcept { value_.store(get() - n, std::memory_order_relaxed); }
    std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

struct alignas(64) SizeClass {
    SpinLock lock;
    SlabIndex partial = no_slab;
    SlabIndex partial_last = no_slab;
    SlabIndex sparse = no_slab;
    SlabIndex with_deferred = no_slab;
    std::uint32_t partial_slabs = 0;
    Counter blobs, blob_bytes, leased_blobs, free_slots;
};

}  // namespace

struct BlobStore::State : Unmanaged {
    State(Region& region_, std::size_t region_bytes)
        : region(region_),
          base(region_.bytes()),
          pool(region_, region_bytes),
          tables(pool.part_count()),
          tables_of(pool.part_count()),
          class_of(pool.part_count()),
          sparse(pool.part_count()),
          direct_parts(pool.part_count()) {}

    struct Place {
        SlabIndex slab;
        unsigned class_index;
        unsigned slot;
    };

    // Under the lock of the slab's class, as all that is in it.
    SlotTables::View view(SlabIndex index, unsigned class_index) const {
        return tables.at(tables_of[index], classes.slot[class_index].slots);
    }
    Slab& slab_at(SlabIndex index, unsigned class_index) const { return *view(index, class_index).slab; }
    unsigned class_at(SlabIndex part) const { return class_of[part].load(std::memory_order_relaxed); }
    void set_class(SlabIndex index, unsigned parts, unsigned class_index);
    std::byte* slot_at(const Place& place) const {
        return base + place.slab * part_bytes +
               place.slot * std::size_t{classes.slot[place.class_index].bytes};
    }
    // What cannot be cleared can be read by nobody either.
    void scrub(const Place& place) const {
        region.clear(static_cast<std::size_t>(slot_at(place) - base), classes.slot[place.class_index].bytes);
    }

    Place locate(BlobRef ref) const;
    BlobRef allocate_in(unsigned class_index, std::size_t bytes);
    unsigned occupy_slot(const SlotTables::View& view);
    SlabIndex add_slab(unsigned class_index);
    void remove_slab(SlabIndex index, unsigned class_index);
    bool is_sparse(SlabIndex part) const { return sparse[part].load(std::memory_order_relaxed) != 0; }
    void set_sparse(SlabIndex index, unsigned class_index, bool is_sparse);
    void push(SlabIndex index, unsigned class_index);
    void push_last(SlabIndex index, unsigned class_index);
    void unlink(SlabIndex index, unsigned class_index);
    void mark(SlabIndex index, unsigned class_index, bool is_sparse);
    SlabIndex slab_with_room(unsigned class_index);
    BlobRef allocate_at(SlabIndex index, unsigned class_index, std::size_t bytes);
    std::uint32_t begun_slabs(unsigned class_index);
    std::size_t mark_some(Marking* marking);
    std::size_t bytes_of(const Place& place);
    void settle_lease(const SlotTables::View& view, std::size_t words);
    bool defer_if_leased(const Place& place, const SlotTables::View& view);
    void vacate_slot(const Place& place, const SlotTables::View& view);
    void quarantine_slabs(unsigned class_index, SlabIndex first, SlabIndex end);
    bool free_deferred(unsigned class_index);
    const char* validate_slab(SlabIndex index, StoreCounters* sum) const;
    struct Listed {
        std::size_t partial = 0, sparse = 0, with_deferred = 0, free_slots = 0;
    };
    const char* validate_list(SlabIndex head, unsigned class_index, bool is_sparse, std::size_t slabs) const;
    const char* validate_lists(unsigned class_index, Listed listed) const;

    Region& region;
    std::byte* const base;
    SlabPool pool;
    SlotTables tables;
    LazyArray<TableIndex> tables_of;  // of each slab, under the lock of its class
    // The class of each part of 8 KiB, 0 for none; a byte each because bytes() reads nothing else. Written
    // under the class's lock; relaxed, because whoever holds a reference got it from somebody who had
    // allocated it.
    LazyArray<std::atomic<std::uint8_t>> class_of;
    // Is the part of a slab in its class's list of those that are being emptied? Written under the class's
    // lock; relaxed, because a walk over all blobs reads it for each, and whoever moves one looks again.
    LazyArray<std::atomic<std::uint8_t>> sparse;
    std::array<SizeClass, classes.count> by_class;

    // Direct buffers, under direct_lock: how many parts, at the first part of each.
    LazyArray<std::uint32_t> direct_parts;
    SpinLock direct_lock;
    Counter direct_bytes, direct_buffers;

    // Leases: written with all classes locked, read with any one locked (`leases` also without).
    std::atomic<std::uint32_t> leases{0};
    std::uint32_t lease_epoch = 0;        // counts lease_all()
    std::uint32_t first_lease_epoch = 0;  // of the oldest lease since there was none
};

BlobStore::State::Place BlobStore::State::locate(BlobRef ref) const {
    const std::uint64_t offset = (ref - 1) * unit_bytes;
    const std::uint64_t at = offset / part_bytes;
    if (ref == no_blob || at >= pool.part_count())
        die("pnode: blob store: a reference to no place in the region\n");
    auto slab = static_cast<SlabIndex>(at);
    const unsigned class_index = class_at(slab);
    const SlotSize& size = classes.slot[class_index];
    if (class_index == 0) die("pnode: blob store: a reference to a slab that is free\n");
    slab &= ~(SlabIndex{size.parts} - 1);
    const auto inside = static_cast<std::uint32_t>(offset - slab * part_bytes);
    if (inside % size.bytes != 0 || inside / size.bytes >= size.slots)
        die("pnode: blob store: a reference into a slot\n");
    return {slab, class_index, inside / size.bytes};
}

void BlobStore::State::set_sparse(SlabIndex index, unsigned class_index, bool is_sparse) {
    for (SlabIndex part = index; part < index + classes.slot[class_index].parts; ++part)
        sparse[part].store(is_sparse ? 1 : 0, std::memory_order_relaxed);
}

// Into the list that a slab with a free slot is in.
void BlobStore::State::push(SlabIndex index, unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    const bool is_sparse = this->is_sparse(index);
    Slab& slab = slab_at(index, class_index);
    SlabIndex& head = is_sparse ? owner.sparse : owner.partial;
    slab.previous = no_slab;
    slab.next = head;
    if (head != no_slab) slab_at(head, class_index).previous = index;
    if (head == no_slab && !is_sparse) owner.partial_last = index;
    head = index;
    owner.partial_slabs += is_sparse ? 0 : 1;
}

// One that is not sparse, to be used after the others.
void BlobStore::State::push_last(SlabIndex index, unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    if (owner.partial == no_slab) return push(index, class_index);
    Slab& slab = slab_at(index, class_index);
    slab.previous = owner.partial_last;
    slab.next = no_slab;
    slab_at(owner.partial_last, class_index).next = index;
    owner.partial_last = index;
    ++owner.partial_slabs;
}

void BlobStore::State::unlink(SlabIndex index, unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    const bool is_sparse = this->is_sparse(index);
    const Slab& slab = slab_at(index, class_index);
    SlabIndex& head = is_sparse ? owner.sparse : owner.partial;
    (slab.previous != no_slab ? slab_at(slab.previous, class_index).next : head) = slab.next;
    if (slab.next != no_slab) slab_at(slab.next, class_index).previous = slab.previous;
    if (slab.next == no_slab && !is_sparse) owner.partial_last = slab.previous;
    owner.partial_slabs -= is_sparse ? 0 : 1;
}

void BlobStore::State::mark(SlabIndex index, unsigned class_index, bool is_sparse) {
    unlink(index, class_index);
    set_sparse(index, class_index, is_sparse);
    push(index, class_index);
}

// Before another slab is opened, one that is being emptied is no longer.
SlabIndex BlobStore::State::slab_with_room(unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    if (owner.partial == no_slab && owner.sparse != no_slab) mark(owner.sparse, class_index, false);
    return owner.partial != no_slab ? owner.partial : add_slab(class_index);
}

void BlobStore::State::set_class(SlabIndex index, unsigned parts, unsigned class_index) {
    for (SlabIndex part = index; part < index + parts; ++part) {
        class_of[part].store(static_cast<std::uint8_t>(class_index), std::memory_order_relaxed);
    }
}

SlabIndex BlobStore::State::add_slab(unsigned class_index) {
    const SlotSize& size = classes.slot[class_index];
    const SlabIndex index = pool.take(size.parts);
    if (index == no_slab) return no_slab;
    tables_of[index] = tables.take(size.slots);
    slab_at(index, class_index).lease_epoch = lease_epoch;
    set_class(index, size.parts, class_index);
    push(index, class_index);
    by_class[class_index].free_slots.add(size.slots);
    return index;
}

void BlobStore::State::remove_slab(SlabIndex index, unsigned class_index) {
    const SlotSize& size = classes.slot[class_index];
    unlink(index, class_index);
    by_class[class_index].free_slots.subtract(size.slots);
    set_sparse(index, class_index, false);
    set_class(index, size.parts, 0);
    tables.give(tables_of[index], size.slots);
    pool.give(index, size.parts);
}

// Brings a slab's `leased` up to date before its first change since the last lease_all(): what it holds now
// is what it held then.
void BlobStore::State::settle_lease(const SlotTables::View& view, std::size_t words) {
    Slab& slab = *view.slab;
    if (slab.lease_epoch == lease_epoch) return;
    const bool leased_before = slab.lease_epoch >= first_lease_epoch;
    for (std::size_t word = 0; word < words; ++word) {
        view.leased[word] = view.occupied[word] | (leased_before ? view.leased[word] : 0);
    }
    slab.lease_epoch = lease_epoch;
}

// A free slot exists.
unsigned BlobStore::State::occupy_slot(const SlotTables::View& view) {
    Slab& slab = *view.slab;
    while (view.occupied[slab.first_word] == ~std::uint64_t{0}) ++slab.first_word;
    const unsigned slot =
        slab.first_word * 64u + static_cast<unsigned>(std::countr_one(view.occupied[slab.first_word]));
    set_bit(view.occupied, slot);
    ++slab.occupied;
    return slot;
}

BlobRef BlobStore::State::allocate_in(unsigned class_index, std::size_t bytes) {
    const std::lock_guard guard(by_class[class_index].lock);
    const SlabIndex index = slab_with_room(class_index);
    return index != no_slab ? allocate_at(index, class_index, bytes) : no_blob;
}

// In a slab with a free slot, its class locked.
BlobRef BlobStore::State::allocate_at(SlabIndex index, unsigned class_index, std::size_t bytes) {
    const SlotSize& size = classes.slot[class_index];
    SizeClass& owner = by_class[class_index];
    const SlotTables::View view = this->view(index, class_index);
    settle_lease(view, SlotTables::words(size.slots));
    const unsigned slot = occupy_slot(view);
    if (view.slab->occupied == size.slots) unlink(index, class_index);
    view.slack_bytes[slot] = static_cast<std::uint16_t>(size.bytes - bytes);
    owner.free_slots.subtract(1);
    owner.blobs.add(1);
    owner.blob_bytes.add(bytes);
    return (index * part_bytes + slot * std::size_t{size.bytes}) / unit_bytes + 1;
}

// The slot is scrubbed and its class locked.
void BlobStore::State::vacate_slot(const Place& place, const SlotTables::View& view) {
    Slab& slab = *view.slab;
    const bool was_full = slab.occupied == classes.slot[place.class_index].slots;
    clear_bit(view.occupied, place.slot);
    --slab.occupied;
    if (place.slot / 64 < slab.first_word) slab.first_word = static_cast<std::uint16_t>(place.slot / 64);
    if (slab.quarantined != 0) return;
    by_class[place.class_index].free_slots.add(1);
    if (was_full) push(place.slab, place.class_index);
    if (slab.occupied == 0) remove_slab(place.slab, place.class_index);
}

bool BlobStore::State::defer_if_leased(const Place& place, const SlotTables::View& view) {
    if (leases.load(std::memory_order_relaxed) == 0) return false;
    Slab& slab = *view.slab;
    SizeClass& owner = by_class[place.class_index];
    settle_lease(view, SlotTables::words(classes.slot[place.class_index].slots));
    if (!has_bit(view.leased, place.slot)) return false;
    set_bit(view.deferred, place.slot);
    if (slab.deferred++ == 0) {
        slab.next_deferred = owner.with_deferred;
        owner.with_deferred = place.slab;
    }
    owner.leased_blobs.add(1);
    return true;
}

// Frees the deferred slots of one slab. False: none is left, or a new lease may cover them.
bool BlobStore::State::free_deferred(unsigned class_index) {
    SizeClass& owner = by_class[class_index];
    const std::lock_guard guard(owner.lock);
    if (owner.with_deferred == no_slab || leases.load(std::memory_order_relaxed) != 0) return false;
    const SlabIndex index = owner.with_deferred;
    const SlotTables::View view = this->view(index, class_index);
    Slab& slab = *view.slab;
    owner.with_deferred = slab.next_deferred;
    owner.leased_blobs.subtract(slab.deferred);
    unsigned left = slab.deferred;
    slab.deferred = 0;
    // By count: after the last slot the slab, and with it the view, may be somebody else's.
    for (unsigned slot = 0; left != 0; ++slot) {
        if (!has_bit(view.deferred, slot)) continue;
        --left;
        clear_bit(view.deferred, slot);
        scrub({index, class_index, slot});
        vacate_slot({index, class_index, slot}, view);
    }
    return true;
}

BlobStore::BlobStore(Region& region, std::size_t physical_bytes_max)
    : state_(new State(region, region_bytes_max)) {
    set_physical_bytes_max(physical_bytes_max);
}

BlobStore::~BlobStore() = default;

BlobRef BlobStore::allocate(std::size_t bytes) noexcept {
    if (!is_blob_size(bytes)) return no_blob;
    const unsigned class_index = class_for(bytes);
    const BlobRef ref = state_->allocate_in(class_index, bytes);
    if (ref != no_blob) return ref;
    trim();  // waits for another's, whose slabs are then free again
    return state_->allocate_in(class_index, bytes);
}

void BlobStore::free(BlobRef ref) noexcept {
    State& state = *state_;
    const State::Place place = state.locate(ref);
    SizeClass& owner = state.by_class[place.class_index];
    const std::lock_guard guard(owner.lock);
    const SlotTables::View view = state.view(place.slab, place.class_index);
    if (!has_bit(view.occupied, place.slot) || has_bit(view.deferred, place.slot))
        die("pnode: blob store: a blob freed twice\n");
    owner.blobs.subtract(1);
    owner.blob_bytes.subtract(state.bytes_of(place));
    if (state.defer_if_leased(place, view)) return;
    state.scrub(place);
    state.vacate_slot(place, view);
}

std::span<std::byte> BlobStore::bytes(BlobRef ref) const noexcept {
    const std::uint64_t offset = (ref - 1) * unit_bytes;
    const unsigned class_index = state_->class_at(static_cast<SlabIndex>(offset / part_bytes));
    return {state_->base + offset, classes.slot[class_index].bytes};
}

std::size_t BlobStore::slot_bytes_for(std::size_t bytes) noexcept {
    return is_blob_size(bytes) ? classes.slot[class_for(bytes)].bytes : 0;
}

bool BlobStore::write(BlobRef ref, std::span<const std::byte> blob) noexcept {
    return state_->region.store((ref - 1) * unit_bytes, blob);
}

// Slabs up to 64 KiB, then whole chunks.
std::byte* BlobStore::take_direct(std::size_t bytes) noexcept {
    State& state = *state_;
    const std::size_t wanted = (bytes + part_bytes - 1) / part_bytes;
    if (wanted == 0 || wanted > state.pool.part_count()) return nullptr;
    auto parts = static_cast<unsigned>(wanted);
    const unsigned chunks = (parts + parts_per_chunk - 1) / parts_per_chunk;
    parts = parts <= 8 ? std::bit_ceil(parts) : chunks * parts_per_chunk;
    const auto take = [&] { return parts <= 8 ? state.pool.take(parts) : state.pool.take_chunks(chunks); };
    SlabIndex slab = take();
    if (slab == no_slab) {
        trim();
        slab = take();
    }
    if (slab == no_slab) return nullptr;
    const std::size_t offset = slab * part_bytes;
    // What is free was scrubbed; only a device's bytes may be an earlier tenant's.
    if (state.region.outlives_owner()) state.region.clear(offset, parts * part_bytes);
    const std::lock_guard guard(state.direct_lock);
    state.direct_parts[slab] = parts;
    state.direct_bytes.add(parts * part_bytes);
    state.direct_buffers.add(1);
    return state.base + offset;
}

bool BlobStore::give_direct(std::byte* address) noexcept {
    State& state = *state_;
    const auto offset = static_cast<std::size_t>(address - state.base);
    if (address < state.base || offset % part_bytes != 0 || offset / part_bytes >= state.pool.part_count())
        return false;
    const auto slab = static_cast<SlabIndex>(offset / part_bytes);
    unsigned parts = 0;
    {
        const std::lock_guard guard(state.direct_lock);
        parts = std::exchange(state.direct_parts[slab], 0);
        if (parts == 0) return false;
        state.direct_bytes.subtract(parts * part_bytes);
        state.direct_buffers.subtract(1);
    }
    state.region.clear(offset, parts * part_bytes);
    if (parts <= 8) state.pool.give(slab, parts);
    if (parts > 8) state.pool.give_chunks(slab, parts / parts_per_chunk);
    return true;
}

std::uint64_t BlobStore::direct_bytes() const noexcept {
    return state_->direct_bytes.get();
}

std::uint64_t BlobStore::direct_buffers() const noexcept {
    return state_->direct_buffers.get();
}

// With the class locked.
void BlobStore::State::quarantine_slabs(unsigned class_index, SlabIndex first, SlabIndex end) {
    const SlotSize& size = classes.slot[class_index];
    for (SlabIndex part = first; part < end;) {
        const SlabIndex index = part & ~(SlabIndex{size.parts} - 1);
        part = index + size.parts;
        if (class_at(index) != class_index) continue;
        Slab& slab = slab_at(index, class_index);
        if (slab.quarantined != 0) continue;
        if (slab.occupied != size.slots) unlink(index, class_index);
        by_class[class_index].free_slots.subtract(size.slots - slab.occupied);
        slab.quarantined = 1;
        set_sparse(index, class_index, false);
    }
}

void BlobStore::quarantine(std::size_t offset, std::size_t length) noexcept {
    State& state = *state_;
    const auto first =
        static_cast<SlabIndex>(std::min<std::size_t>(offset / part_bytes, state.pool.part_count()));
    const auto end = static_cast<SlabIndex>(
        std::min<std::size_t>((offset + length + part_bytes - 1) / part_bytes, state.pool.part_count()));
    // Free parts, then slabs, then what became free between the two.
    state.pool.quarantine(first, end);
    for (unsigned index = 1; index < classes.count; ++index) {
        const std::lock_guard guard(state.by_class[index].lock);
        state.quarantine_slabs(index, first, end);
    }
    state.pool.quarantine(first, end);
}

std::uint64_t BlobStore::quarantined_bytes() const noexcept {
    return state_->pool.quarantined_bytes();
}

void BlobStore::wipe() noexcept {
    state_->pool.wipe();
}

// As asked for; its class is locked.
std::size_t BlobStore::State::bytes_of(const Place& place) {
    return classes.slot[place.class_index].bytes -
           view(place.slab, place.class_index).slack_bytes[place.slot];
}

std::uint32_t BlobStore::State::begun_slabs(unsigned class_index) {
    const std::lock_guard guard(by_class[class_index].lock);
    return by_class[class_index].partial_slabs;
}

// Marks some slabs of one class, the emptiest first, as long as what they hold has room: in those that are
// kept, or, for the last of them, in larger slots. What is kept goes to the list's end, the fullest first, so
// that the next call finds others. How many were looked at; they are few, for others wait for the lock.
std::size_t BlobStore::State::mark_some(Marking* marking) {
    const unsigned class_index = marking->size;
    const SlotSize& size = classes.slot[class_index];
    SizeClass& owner = by_class[class_index];
    std::array<BegunSlab, begun_slabs_max> begun;
    const std::size_t count_max = std::min<std::size_t>(marking->slabs_left, begun.size());
    std::size_t count = 0;
    const std::lock_guard guard(owner.lock);
    for (SlabIndex index = owner.partial; index != no_slab && count < count_max;
         index = slab_at(index, class_index).next)
        begun[count++] = {index, slab_at(index, class_index).occupied};
    const std::span<std::uint32_t> larger =
        std::span(marking->room).subspan(class_index + 1, end_of_larger(class_index) - class_index - 1);
    const PackingPlan plan = plan_packing({begun.data(), count}, size.slots, larger);
    marking->room[class_index] += plan.room;
    marking->bytes += (count - plan.kept) * size.parts * part_bytes;
    for (std::size_t index = 0; index < count; ++index) {
        if (index >= plan.kept) {
            mark(begun[index].slab, class_index, true);
        } else {
            unlink(begun[index].slab, class_index);
            push_last(begun[index].slab, class_index);
        }
    }
    return count;
}

// `room` is told of the larger sizes before it is asked for by a smaller one.
bool BlobStore::mark_sparse(Marking* marking) noexcept {
    static_assert(std::tuple_size_v<decltype(Marking::room)> >= classes.count);
    constexpr std::size_t enough = 256;
    if (is_leased()) return false;
    for (std::size_t looked_at = 0; looked_at < enough;) {
        if (marking->slabs_left == 0) {
            if (marking->size == 1) return false;
            marking->size = marking->size == 0 ? static_cast<unsigned>(classes.count) - 1 : marking->size - 1;
            marking->slabs_left = state_->begun_slabs(marking->size);
        }
        const std::size_t count = state_->mark_some(marking);
        marking->slabs_left = count == 0 ? 0 : marking->slabs_left - static_cast<std::uint32_t>(count);
        looked_at += count;
    }
    return true;
}

std::uint64_t BlobStore::free_slot_bytes() const noexcept {
    std::uint64_t bytes = 0;
    for (unsigned index = 1; index < classes.count; ++index)
        bytes += state_->by_class[index].free_slots.get() * classes.slot[index].bytes;
    return bytes;
}

bool BlobStore::is_in_sparse(BlobRef ref) const noexcept {
    return state_->is_sparse(static_cast<SlabIndex>((ref - 1) * unit_bytes / part_bytes));
}

// From the size that fits best on.
BlobRef BlobStore::allocate_elsewhere(BlobRef ref) noexcept {
    State& state = *state_;
    const State::Place place = state.locate(ref);
    std::size_t bytes = 0;
    {
        const std::lock_guard guard(state.by_class[place.class_index].lock);
        bytes = state.bytes_of(place);
    }
    const unsigned fitting = class_for(bytes);
    for (unsigned index = fitting; index < end_of_larger(fitting); ++index) {
        const SizeClass& owner = state.by_class[index];
        const std::lock_guard guard(state.by_class[index].lock);
        if (owner.partial != no_slab) return state.allocate_at(owner.partial, index, bytes);
    }
    return no_blob;
}

bool BlobStore::unmark_sparse() noexcept {
    unsigned left = 256;
    for (unsigned index = 1; index < classes.count; ++index) {
        SizeClass& owner = state_->by_class[index];
        const std::lock_guard guard(owner.lock);
        for (; owner.sparse != no_slab; --left) {
            if (left == 0) return true;
            state_->mark(owner.sparse, index, false);
        }
    }
    return false;
}

bool BlobStore::is_leased() const noexcept {
    return state_->leases.load(std::memory_order_relaxed) != 0;
}

std::size_t BlobStore::trim() noexcept {
    return state_->pool.trim();
}

void BlobStore::lock_all() noexcept {
    for (unsigned index = 1; index < classes.count; ++index) state_->by_class[index].lock.lock();
    state_->tables.lock();
    state_->pool.lock();
}

void BlobStore::unlock_all() noexcept {
    state_->pool.unlock();
    state_->tables.unlock();
    for (unsigned index = 1; index < classes.count; ++index) state_->by_class[index].lock.unlock();
}

void BlobStore::lease_all_locked() noexcept {
    ++state_->lease_epoch;
    if (state_->leases.fetch_add(1, std::memory_order_relaxed) == 0)
        state_->first_lease_epoch = state_->lease_epoch;
}

void BlobStore::lease_all() noexcept {
    lock_all();
    lease_all_locked();
    unlock_all();
}

void BlobStore::end_lease() noexcept {
    lock_all();
    const std::uint32_t leases = state_->leases.fetch_sub(1, std::memory_order_relaxed);
    unlock_all();
    if (leases == 0) die("pnode: blob store: a lease ended that never began\n");
    if (leases > 1) return;
    for (unsigned index = 1; index < classes.count; ++index) {
        while (state_->free_deferred(index)) continue;
    }
}

void BlobStore::set_physical_bytes_max(std::size_t bytes) noexcept {
    const std::uint64_t all = std::uint64_t{state_->pool.part_count()} * part_bytes;
    state_->pool.physical_bytes_max.store(bytes == 0 ? all : bytes, std::memory_order_relaxed);
}

std::size_t BlobStore::physical_bytes_max() const noexcept {
    return state_->pool.physical_bytes_max.load(std::memory_order_relaxed);
}

std::uint64_t BlobStore::physical_bytes() const noexcept {
    return state_->pool.physical_bytes();
}

StoreCounters BlobStore::counters() const noexcept {
    StoreCounters sum{};
    sum.physical_bytes = physical_bytes();
    for (unsigned index = 1; index < classes.count; ++index) {
        const SizeClass& owner = state_->by_class[index];
        const std::uint64_t blobs = owner.blobs.get();
        sum.blobs += blobs;
        sum.slot_bytes += blobs * classes.slot[index].bytes;
        sum.blob_bytes += owner.blob_bytes.get();
        sum.leased_blobs += owner.leased_blobs.get();
    }
    return sum;
}

// Adds what the slab's own tables say to `sum`.
const char* BlobStore::State::validate_slab(SlabIndex index, StoreCounters* sum) const {
    const unsigned class_index = class_at(index);
    const SlotSize& size = classes.slot[class_index];
    const SlotTables::View view = this->view(index, class_index);
    const Slab& slab = *view.slab;
    for (SlabIndex part = index; part < index + size.parts; ++part)
        if (is_sparse(part) != is_sparse(index)) return "a slab is sparse in part";
    unsigned occupied = 0;
    unsigned deferred = 0;
    for (unsigned slot = 0; slot < SlotTables::words(size.slots) * 64; ++slot) {
        const bool is_occupied = has_bit(view.occupied, slot);
        const bool is_deferred = has_bit(view.deferred, slot);
        if (is_occupied && slot >= size.slots) return "a slot beyond its slab's end is occupied";
        if (is_deferred && !is_occupied) return "a deferred slot is not occupied";
        if (!is_occupied && slot < size.slots && slot / 64 < slab.first_word)
            return "a free slot is not looked for";
        occupied += is_occupied ? 1 : 0;
        deferred += is_deferred ? 1 : 0;
        if (is_occupied && !is_deferred) sum->blob_bytes += size.bytes - view.slack_bytes[slot];
    }
    if (occupied != slab.occupied || deferred != slab.deferred)
        return "a slab's counts differ from its bitmaps";
    if (occupied == 0 && slab.quarantined == 0) return "an empty slab was not given back";
    sum->blobs += occupied - deferred;
    sum->slot_bytes += std::uint64_t{occupied - deferred} * size.bytes;
    sum->leased_blobs += deferred;
    return nullptr;
}

const char* BlobStore::State::validate_list(SlabIndex head, unsigned class_index, bool is_sparse,
                                            std::size_t slabs) const {
    SlabIndex previous = no_slab;
    for (SlabIndex index = head; index != no_slab; index = slab_at(index, class_index).next) {
        if (slabs-- == 0) return "a list of slabs with a free slot has a cycle or a full slab";
        if (class_at(index) != class_index) return "a slab is in the list of another class";
        const Slab& slab = slab_at(index, class_index);
        if (slab.previous != previous) return "a list of slabs with a free slot is broken";
        if (this->is_sparse(index) != is_sparse) return "a slab is in the wrong list of its class";
        previous = index;
    }
    if (!is_sparse && by_class[class_index].partial_last != previous)
        return "a list of slabs with a free slot has another end";
    return slabs == 0 ? nullptr : "a slab is missing from a list";
}

const char* BlobStore::State::validate_lists(unsigned class_index, Listed listed) const {
    const SizeClass& owner = by_class[class_index];
    if (owner.partial_slabs != listed.partial || owner.free_slots.get() != listed.free_slots)
        return "slabs with a free slot, or the slots, are miscounted";
    if (const char* wrong = validate_list(owner.partial, class_index, false, listed.partial)) return wrong;
    if (const char* wrong = validate_list(owner.sparse, class_index, true, listed.sparse)) return wrong;
    for (SlabIndex index = owner.with_deferred; index != no_slab;
         index = slab_at(index, class_index).next_deferred) {
        if (listed.with_deferred-- == 0)
            return "the list of slabs with deferred slots has a cycle or one without";
        if (class_at(index) != class_index) return "a slab is in the deferred list of another class";
    }
    return listed.with_deferred == 0 ? nullptr : "a slab is missing from a list";
}

const char* BlobStore::validate() const {
    const State& state = *state_;
    if (const char* wrong = state.pool.validate()) return wrong;
    std::array<State::Listed, classes.count> listed{};
    StoreCounters sum{};
    sum.physical_bytes = physical_bytes();
    for (SlabIndex index = 0; index < state.pool.part_count();) {
        const unsigned class_index = state.class_at(index);
        if (const std::uint32_t parts = state.direct_parts[index]) {
            index += parts;
            continue;
        }
        if ((class_index != 0 || state.pool.is_quarantined(index)) != state.pool.is_taken(index))
            return "a part is taken and has no class, or the reverse";
        if (class_index == 0) {
            ++index;
            continue;
        }
        if (const char* wrong = state.validate_slab(index, &sum)) return wrong;
        const Slab& slab = state.slab_at(index, class_index);
        const bool has_room = slab.occupied < classes.slot[class_index].slots && slab.quarantined == 0;
        const bool is_sparse = state.is_sparse(index);
        (is_sparse ? listed[class_index].sparse : listed[class_index].partial) += has_room ? 1 : 0;
        if (has_room) listed[class_index].free_slots += classes.slot[class_index].slots - slab.occupied;
        listed[class_index].with_deferred += slab.deferred != 0 ? 1 : 0;
        index += classes.slot[class_index].parts;
    }
    for (unsigned index = 1; index < classes.count; ++index) {
        if (const char* wrong = state.validate_lists(index, listed[index])) return wrong;
    }
    const StoreCounters told = counters();
    return std::memcmp(&told, &sum, sizeof sum) == 0 ? nullptr : "the counters differ from the walk";
}

}  // namespace pnode::cxl
