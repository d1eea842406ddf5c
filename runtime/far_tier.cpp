#include "runtime/far_tier.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/os/descriptors.h"

namespace pnode {

int FarTier::configure(Config config) {
    config_ = std::move(config);
    if (config_.node == nullptr) return 0;
    if (const int error = config_.node->attach(config_.user)) return error;
    borrowed_ = config_.node;
    return 0;
}

int FarTier::open(std::string* message) {
    if (is_open()) return 0;
    std::byte seed[32];
    if (::getrandom(seed, sizeof seed, 0) != sizeof seed) {
        *message = "getrandom(2) failed: blobs cannot be keyed";
        return EIO;
    }
    key_.emplace(std::span<const std::byte, 32>(seed));
    return open_node(message);
}

int FarTier::open_node(std::string* message) {
    if (config_.node == nullptr) {
        if (int error = cxl::Node::open(config_.spec, &own_node_, message)) return error;
    }
    node_ = config_.node != nullptr ? config_.node : own_node_.get();
    const std::uint64_t node_bytes = node_->region().size_bytes();
    bytes_max_ = config_.bytes_max != 0 ? std::min<std::uint64_t>(config_.bytes_max, node_bytes) : node_bytes;
    if (config_.node == nullptr) {
        apply_limit(dictionaries_.bytes());
        node_->attach(config_.user);
    }
    stores_[own_] = &node_->store();
    regions_[own_] = &node_->region();
    os::adopt_descriptor(node_->region().descriptor());
    // Without room for the counts there are no blocks.
    if (own_ == 0 && codec().block_pages > 1 && !block_counts_.is_mapped()) block_counts_.map(node_bytes);
    return 0;
}

// A node of our own counts for itself; what dictionaries take is not there for blobs.
void FarTier::apply_limit(std::uint64_t dictionary_bytes) noexcept {
    if (config_.node == nullptr)
        node_->set_bytes_max(std::max<std::uint64_t>(bytes_max_ - std::min(bytes_max_, dictionary_bytes), 1));
}

void FarTier::close() noexcept {
    if (borrowed_ != nullptr) borrowed_->detach(config_.user);
    borrowed_ = nullptr;
    node_ = nullptr;
    give_up_own_node();
}

void FarTier::give_up_own_node() noexcept {
    if (own_node_ != nullptr) os::disown_descriptor(own_node_->region().descriptor());
    own_node_.reset();
}

bool FarTier::become_child(std::string* message) {
    if (!is_open()) return true;
    if (own_ + 1 >= stores_max) {
        *message = "forked more than 15 generations deep";
        return false;
    }
    own_from_now_on();
    ancestors_[own_] = std::move(own_node_);
    ++own_;
    return open_node(message) == 0;
}

void FarTier::forget() noexcept {
    if (!is_open()) return;
    dictionaries_.forget();
    block_counts_.forget();
    own_from_now_on();
    give_up_own_node();
}

// A borrowed node is the parent's: its metadata here is a snapshot that only bytes() may use. What is placed
// from now on goes to a node of this process.
void FarTier::own_from_now_on() noexcept {
    config_.spec = "memory:" + std::to_string(node_->region().size_bytes());
    config_.node = nullptr;
    slot_bytes_.store(0, std::memory_order_relaxed);
    node_ = nullptr;
}

// Once there is a dictionary, the fast codec uses it too: a fifth smaller, for two microseconds.
FarTier::Encoded FarTier::encode(std::span<const std::byte> contents, const compress::ContentHash& hash,
                                 std::span<std::byte> room, std::span<std::byte> scratch) noexcept {
    compress::CodecChoice choice = codec();
    choice.dictionary = dictionaries_.acquire();
    const std::span<const std::byte> blob =
        room.first(compress::encode(contents, hash, choice, room, scratch));
    if (choice.dictionary == nullptr) return {blob, 0};
    const unsigned name = Dictionaries::name_of(*choice.dictionary);
    compress::Dictionary::Version version = 0;
    if (compress::stored_dictionary(blob, &version)) return {blob, name};
    dictionaries_.release(name);
    return {blob, 0};
}

cxl::BlobRef FarTier::place(std::span<const std::byte> blob) noexcept {
    const std::uint64_t bytes = cxl::BlobStore::slot_bytes_for(blob.size());
    // Counted first: several threads place, and the limit is one.
    const bool fits =
        slot_bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes + dictionaries_.bytes() <= bytes_max_;
    const cxl::BlobRef ref = fits ? node_->place(blob) : cxl::no_blob;
    if (ref == cxl::no_blob) slot_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    return ref;
}

void FarTier::drop(PageWord word) noexcept {
    if (word.place() == cxl::no_blob) return;
    if (word.is_block()) {
        const BlockCounts::Left left = block_counts_.drop(word.place(), word.pages());
        if (left == BlockCounts::Left::some) return;
        if (left == BlockCounts::Left::none_but_lost) return dictionaries_.release(word);
    }
    free_blob(word);
}

void FarTier::give_up(PageWord word) noexcept {
    if (word.is_block() && block_counts_.lose(word.place(), word.pages()) == BlockCounts::Left::some) return;
    dictionaries_.release(word);
}

void FarTier::free_blob(PageWord word) noexcept {
    dictionaries_.release(word);
    if (word.store() == own_) free_place(word);
}

void FarTier::free_place(PageWord word) noexcept {
    cxl::BlobStore& store = node_->store();
    slot_bytes_.fetch_sub(store.bytes(word.place()).size(), std::memory_order_relaxed);
    store.free(word.place());
}

cxl::BlobRef FarTier::copy_elsewhere(PageWord word, std::span<std::byte> copy) noexcept {
    const std::span<const std::byte> slot = bytes(word);
    copy = copy.first(std::min(copy.size(), slot.size()));
    if (copy.size() != slot.size() ||
        !load(word, [&] { std::memcpy(copy.data(), slot.data(), slot.size()); }))
        return cxl::no_blob;
    const cxl::BlobRef elsewhere = node_->place_elsewhere(word.place(), copy);
    if (elsewhere == cxl::no_blob) return cxl::no_blob;
    if (word.is_block() && !block_counts_.move(word.place(), elsewhere)) {
        node_->store().free(elsewhere);
        return cxl::no_blob;
    }
    slot_bytes_.fetch_add(node_->store().bytes(elsewhere).size(), std::memory_order_relaxed);
    return elsewhere;
}

// What a room remembers is proven like what was decoded just now: the place may have another block by now.
compress::DecodeResult FarTier::decode(std::span<const std::byte> blob, PageWord word, std::uint64_t page,
                                       std::span<std::byte> contents, Room& room,
                                       compress::iaa::Accelerator* accelerator) const noexcept {
    const compress::Dictionary* const dictionary = dictionaries_.of(word);
    if (!word.is_block())
        return compress::decode(blob, key(), contents, room.scratch, accelerator, dictionary);
    const cxl::BlobRef remembered = std::exchange(room.block, cxl::no_blob);
    const std::size_t block_bytes = word.pages() * page_bytes;
    if (room.bytes.size() < block_bytes || blob.size() < compress::block_header_bytes(word.pages()))
        return compress::DecodeResult::truncated;
    const unsigned index = index_in_block(word, page);
    const std::span<std::byte> decoded = room.bytes.subspan(index * page_bytes, page_bytes);
    const compress::ContentHash wanted = compress::stored_hash_of(blob, index);
    if (remembered != word.place() || key().hash(decoded) != wanted) {
        const compress::DecodeResult result =
            compress::decode_pages(blob, room.bytes.first(block_bytes), room.scratch, dictionary);
        if (result != compress::DecodeResult::ok) return result;
        if (key().hash(decoded) != wanted) return compress::DecodeResult::hash_mismatch;
    }
    std::memcpy(contents.data(), decoded.data(), page_bytes);
    room.block = word.place();
    return compress::DecodeResult::ok;
}

// The room is taken first and looked at then, for blobs are placed meanwhile.
bool FarTier::publish(os::Mapping memory, const compress::Dictionary& dictionary) noexcept {
    apply_limit(dictionaries_.bytes() + memory.bytes());
    if (!dictionaries_.has_room() || physical_bytes() + memory.bytes() > bytes_max_) {
        apply_limit(dictionaries_.bytes());
        return false;
    }
    dictionaries_.publish(std::move(memory), dictionary);
    apply_limit(dictionaries_.bytes());
    return true;
}

void FarTier::collect_dictionaries() noexcept {
    if (dictionaries_.collect()) apply_limit(dictionaries_.bytes());
}

MemoryUse FarTier::use(const Statistics& statistics, const NearLedger& near) const noexcept {
    return {.near_pages_max = near.limit_pages(),
            .far_pages = statistics.far_pages.value(),
            .blob_bytes = physical_bytes(),
            .kept_bytes = statistics.kept_blob_bytes.value(),
            .has_total = near.has_total()};
}

bool FarTier::should_keep(PageWord word, const Statistics& statistics,
                          const NearLedger& near) const noexcept {
    if (word.store() != own_) return true;  // under lease, it costs nothing
    if (word.is_block()) return false;      // it would keep the bytes of pages that are gone
    if (!node_->gate().is_open() || is_past(14)) return false;
    if (is_room_apart() && !near.has_total()) return true;
    return KeepRule::keeps(use(statistics, near), word.level());
}

// Whoever gave far pages a limit, or memory of their own, gave them that much: what is free of it saves
// nothing.
bool FarTier::is_room_apart() const noexcept {
    return config_.bytes_max != 0 || node_->region().is_memory_apart();
}

bool FarTier::keeps_too_much(const Statistics& statistics, const NearLedger& near) const noexcept {
    return is_nearly_full() || (near.has_total() && KeepRule::is_waste_in_total(use(statistics, near)));
}

void FarTier::leave(std::unique_ptr<cxl::Node> nowhere) noexcept {
    borrowed_->detach(config_.user);
    borrowed_ = nullptr;
    own_node_ = std::move(nowhere);
    config_.node = own_node_.get();
    if (!is_open()) return;
    dictionaries_.withdraw();
    os::disown_descriptor(node_->region().descriptor());
    node_ = own_node_.get();
    stores_[own_] = &node_->store();
    regions_[own_] = &node_->region();
    bytes_max_ = 0;
    os::adopt_descriptor(node_->region().descriptor());
}

bool FarTier::is_nearly_full() const noexcept {
    return is_past(15);
}

// Of our limit, or of what the node takes from all.
bool FarTier::is_past(unsigned sixteenths) const noexcept {
    return physical_bytes() > bytes_max_ / 16 * sixteenths ||
           node_->store().physical_bytes() > node_->placeable_bytes() / 16 * sixteenths;
}

std::uint64_t FarTier::physical_bytes() const noexcept {
    if (node_ == nullptr) return 0;
    return dictionaries_.bytes() + (config_.node != nullptr ? slot_bytes_.load(std::memory_order_relaxed)
                                                            : node_->store().physical_bytes());
}

}  // namespace pnode
