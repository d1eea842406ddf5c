#include "runtime/far_tier.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/os/descriptors.h"

namespace pnode {

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
    if (config_.node == nullptr) node_->store().set_physical_bytes_max(bytes_max_);
    stores_[own_] = &node_->store();
    node_->users.fetch_add(1, std::memory_order_relaxed);
    os::adopt_descriptor(node_->region().descriptor());
    return 0;
}

void FarTier::close() noexcept {
    if (node_ != nullptr) node_->users.fetch_sub(1, std::memory_order_relaxed);
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
    own_from_now_on();
    give_up_own_node();
}

// A borrowed node is the parent's: its metadata here is a snapshot that only bytes() may use. What is placed
// from now on goes to a node of this process.
void FarTier::own_from_now_on() noexcept {
    config_.spec = "memory:" + std::to_string(node_->region().size_bytes());
    config_.node = nullptr;
    slot_bytes_.subtract(slot_bytes_.value());
    node_ = nullptr;
}

cxl::BlobRef FarTier::place(std::span<const std::byte> blob) noexcept {
    if (slot_bytes_.value() + blob.size() > bytes_max_) return cxl::no_blob;
    const cxl::BlobRef ref = node_->place(blob.size());
    if (ref == cxl::no_blob) return ref;
    const std::span<std::byte> slot = node_->store().bytes(ref);
    std::memcpy(slot.data(), blob.data(), blob.size());
    slot_bytes_.add(slot.size());
    return ref;
}

void FarTier::drop(PageWord word) noexcept {
    if (word.place() == cxl::no_blob || word.store() != own_) return;
    cxl::BlobStore& store = node_->store();
    slot_bytes_.subtract(store.bytes(word.place()).size());
    store.free(word.place());
}

bool FarTier::should_keep(PageWord word, std::uint64_t kept_bytes,
                          std::uint64_t kept_bytes_max) const noexcept {
    if (word.store() != own_) return true;  // under lease, it costs nothing
    if (config_.bytes_max == 0 && kept_bytes >= kept_bytes_max) return false;
    return physical_bytes() < bytes_max_ - bytes_max_ / 8;
}

bool FarTier::is_nearly_full() const noexcept {
    return physical_bytes() > bytes_max_ - bytes_max_ / 16;
}

std::uint64_t FarTier::physical_bytes() const noexcept {
    return node_ != nullptr ? node_->store().physical_bytes() : 0;
}

}  // namespace pnode
