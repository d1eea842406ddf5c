// A heap's far side: the node it places blobs on, the codec, and, after fork, the stores of its ancestors,
// which it may read and must never change.
//
// Thread rule: any thread, any context after open(); every call is short, none allocates. Callers block
// signals (blob_store.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "compress/blob.h"
#include "compress/codec.h"
#include "cxl/node.h"
#include "runtime/page_word.h"
#include "runtime/statistics.h"

namespace pnode {

class FarTier {
  public:
    struct Config {
        compress::CodecChoice codec;
        std::string spec;           // of the node to open when none is borrowed
        cxl::Node* node = nullptr;  // borrowed
        std::uint64_t bytes_max = 0;
    };
    // Only remembers: nothing is opened before it is needed.
    void configure(Config config) { config_ = std::move(config); }
    const Config& config() const noexcept { return config_; }
    // Opens the node and draws the key; once. 0 or an errno with a message.
    int open(std::string* message);
    bool is_open() const noexcept { return node_ != nullptr; }
    void close() noexcept;

    // In a forked child: what was ours is the parent's now; blobs of our own go to a node of our own. False
    // when there were too many generations: the caller must bring everything near instead.
    bool become_child(std::string* message);
    // In a forked child that has no blob at all: as if it had never been opened.
    void forget() noexcept;

    const compress::CodecChoice& codec() const noexcept { return config_.codec; }
    const compress::BlobKey& key() const noexcept { return *key_; }
    unsigned own_store() const noexcept { return own_; }

    // Copies `blob` into a slot; no_blob when the node is full or gated, or the far limit is reached.
    cxl::BlobRef place(std::span<const std::byte> blob) noexcept;
    std::span<const std::byte> bytes(PageWord word) const noexcept {
        return stores_[word.store()]->bytes(word.place());
    }
    // Frees the blob `word` names, if any, and if it is ours to free.
    void drop(PageWord word) noexcept;

    // Keep a promoted page's blob? Only while far space is slack (DESIGN 5.3): with a far limit of the
    // user's, until that is nearly reached; without one, up to `kept_bytes_max`, for the node is memory too.
    bool should_keep(PageWord word, std::uint64_t kept_bytes, std::uint64_t kept_bytes_max) const noexcept;
    bool is_nearly_full() const noexcept;

    std::uint64_t physical_bytes() const noexcept;
    std::uint64_t bytes_max() const noexcept { return bytes_max_; }
    cxl::Node* node() noexcept { return node_; }
    const cxl::Node* node() const noexcept { return node_; }
    // The store blobs are placed on; null before open().
    cxl::BlobStore* store() noexcept { return node_ != nullptr ? &node_->store() : nullptr; }

  private:
    int open_node(std::string* message);
    void own_from_now_on() noexcept;
    void give_up_own_node() noexcept;

    Config config_;
    std::optional<compress::BlobKey> key_;
    std::unique_ptr<cxl::Node> own_node_;
    std::unique_ptr<cxl::Node> ancestors_[stores_max];  // kept alive for their mappings
    cxl::Node* node_ = nullptr;
    const cxl::BlobStore* stores_[stores_max] = {};
    unsigned own_ = 0;
    std::uint64_t bytes_max_ = 0;
    Counter slot_bytes_;  // of our blobs, when others share the node
};

}  // namespace pnode
