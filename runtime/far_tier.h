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
#include "runtime/block_counts.h"
#include "runtime/dictionaries.h"
#include "runtime/keep_rule.h"
#include "runtime/near_ledger.h"
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
        cxl::NodeUser* user = nullptr;  // who is told when the node changes
    };
    // Remembers, and claims a borrowed node: nothing is opened before it is needed. EBUSY ENFILE:
    // Node::attach.
    int configure(Config config);
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

    // A page's blob; empty: it does not save enough. The dictionary that it needs comes with a reference,
    // which goes into the page word with it, or back (discard).
    struct Encoded {
        std::span<const std::byte> blob;
        unsigned dictionary = 0;  // as a page word names it
        bool is_final = false;    // nobody makes it smaller
    };
    Encoded encode(std::span<const std::byte> contents, const compress::ContentHash& hash,
                   std::span<std::byte> room, std::span<std::byte> scratch) noexcept;
    // The same by a codec of its own, without a dictionary.
    static Encoded encode_by(const compress::CodecChoice& choice, std::span<const std::byte> contents,
                             const compress::ContentHash& hash, std::span<std::byte> room,
                             std::span<std::byte> scratch) noexcept {
        return {.blob = room.first(compress::encode(contents, hash, choice, room, scratch)),
                .is_final = true};
    }
    void discard(const Encoded& encoded) noexcept { dictionaries_.release(encoded.dictionary); }

    // Copies `blob` into a slot; no_blob when the node is full or gated, or the far limit is reached.
    cxl::BlobRef place(std::span<const std::byte> blob) noexcept;
    std::span<const std::byte> bytes(PageWord word) const noexcept {
        return stores_[word.store()]->bytes(word.place());
    }
    // Where in its blob's contents a page is: neighbours in the heap are neighbours there.
    static unsigned index_in_block(PageWord word, std::uint64_t page) noexcept {
        return static_cast<unsigned>(page % word.pages());
    }
    // As stored with the blob that `word` names; in a body of load().
    compress::ContentHash stored_hash(PageWord word, std::uint64_t page) const noexcept {
        return word.is_block() ? compress::stored_hash_of(bytes(word), index_in_block(word, page))
                               : compress::stored_hash(bytes(word));
    }
    // What it takes to decode. It remembers the block that was decoded there last, so that the block's other
    // pages need not be decoded again.
    struct Room {
        std::span<std::byte> bytes;  // where there may be blocks: compress::block_bytes_max
        std::span<std::byte> scratch;
        cxl::BlobRef block = cxl::no_blob;
    };
    // The page's contents, proven; in a body of load().
    compress::DecodeResult decode(PageWord word, std::uint64_t page, std::span<std::byte> contents,
                                  Room& room, compress::iaa::Accelerator* accelerator) const noexcept {
        return decode(bytes(word), word, page, contents, room, accelerator);
    }
    // The same from a copy of the blob.
    compress::DecodeResult decode(std::span<const std::byte> blob, PageWord word, std::uint64_t page,
                                  std::span<std::byte> contents, Room& room,
                                  compress::iaa::Accelerator* accelerator) const noexcept;

    // Blocks (block_counts.h); place() and then begin_block(), before any word names it.
    bool may_have_blocks() const noexcept { return block_counts_.is_mapped(); }
    void begin_block(cxl::BlobRef ref, unsigned pages) noexcept { block_counts_.begin(ref, pages); }
    unsigned pages_alive(PageWord word) const noexcept { return block_counts_.alive(word.place()); }
    std::uint64_t blocks(unsigned pages) const noexcept { return block_counts_.count(pages); }

    // Runs a body that loads from the blob `word` names (guarded.h says what it may do). False: its memory is
    // bad, and nothing is placed there any more.
    template <class Body>
    bool load(PageWord word, const Body& body) noexcept {
        cxl::BadRange bad;
        if (regions_[word.store()]->load(body, &bad)) return true;
        if (word.store() == own_) node_->went_bad(bad);
        return false;
    }
    // How large a blob may be that is worth storing: a page that saves less than an eighth is not worth a
    // fault (DESIGN 5.3), unless the node's device does the saving.
    std::size_t worthwhile_bytes() const noexcept {
        return codec().codec->keeps_size ? page_bytes + compress::blob_header_bytes
                                         : page_bytes - page_bytes / 8;
    }
    // Packing (blob_store.h). Copies the blob `word` names, which is our own, to a slot where it is not in
    // the way; the caller owns every page whose word names it, and then frees the old place. no_blob: it
    // stays.
    cxl::BlobRef copy_elsewhere(PageWord word, std::span<std::byte> copy) noexcept;
    // The slot alone: what else the blob had is the copy's.
    void free_place(PageWord word) noexcept;
    // Frees the blob `word` names, if any, and if it is ours to free.
    void drop(PageWord word) noexcept;
    // What the blob `word` names is wrong: nothing else shall be stored in its bytes.
    void give_up(PageWord word) noexcept;

    Dictionaries& dictionaries() noexcept { return dictionaries_; }
    const Dictionaries& dictionaries() const noexcept { return dictionaries_; }
    // Makes a dictionary current (dictionaries.h); its memory counts in the far limit. False: there is no
    // room. The recompressor's, as collect_dictionaries(), which gives back what no blob needs.
    bool publish(os::Mapping memory, const compress::Dictionary& dictionary) noexcept;
    void collect_dictionaries() noexcept;
    // May blobs be made anew, and placed?
    bool may_recompress() const noexcept {
        return node_ != nullptr && node_->permits(cxl::service::recompress) && node_->gate().is_open();
    }

    // Keep a promoted page's blob? `word` is what it is going to be. Only while far space is slack
    // (DESIGN 5.3): with a far limit of the user's, or a node that is memory of its own, until that is nearly
    // full. Otherwise, or with a limit of near and far together, what is kept takes memory from what is near:
    // which page is worth it, keep_rule.h.
    bool should_keep(PageWord word, const Statistics& statistics, const NearLedger& near) const noexcept;
    // Are kept blobs to be dropped, though their pages stay near?
    bool keeps_too_much(const Statistics& statistics, const NearLedger& near) const noexcept;
    bool is_nearly_full() const noexcept;
    MemoryUse use(const Statistics& statistics, const NearLedger& near) const noexcept;

    // The node is gone, and nothing of ours was on it: from now on nothing is placed anywhere. Nobody may be
    // in the middle of anything. `nowhere` is a node whose gate is shut.
    void leave(std::unique_ptr<cxl::Node> nowhere) noexcept;
    // Opened by us, for ourselves.
    bool has_node_alone() const noexcept { return node_ != nullptr && config_.node == nullptr; }
    bool uses(const cxl::Node& node) const noexcept { return borrowed_ == &node; }

    // In the node: all that is there when it is ours alone, our blobs' slots when it is borrowed. And beside
    // it: dictionaries.
    std::uint64_t physical_bytes() const noexcept;
    std::uint64_t bytes_max() const noexcept { return bytes_max_; }
    cxl::Node* node() noexcept { return node_; }
    const cxl::Node* node() const noexcept { return node_; }
    // The store blobs are placed on; null before open().
    cxl::BlobStore* store() noexcept { return node_ != nullptr ? &node_->store() : nullptr; }

  private:
    void free_blob(PageWord word) noexcept;
    bool is_past(unsigned sixteenths) const noexcept;
    bool is_room_apart() const noexcept;
    int open_node(std::string* message);
    void own_from_now_on() noexcept;
    void give_up_own_node() noexcept;
    void apply_limit(std::uint64_t dictionary_bytes) noexcept;

    Config config_;
    Dictionaries dictionaries_;
    BlockCounts block_counts_;  // of the first store of this process's line: children make no blocks
    std::optional<compress::BlobKey> key_;
    std::unique_ptr<cxl::Node> own_node_;
    std::unique_ptr<cxl::Node> ancestors_[stores_max];  // kept alive for their mappings
    cxl::Node* borrowed_ = nullptr;                     // attached to, in a forked child by its parent's copy
    cxl::Node* node_ = nullptr;
    const cxl::Region* regions_[stores_max] = {};
    const cxl::BlobStore* stores_[stores_max] = {};
    unsigned own_ = 0;
    std::uint64_t bytes_max_ = 0;
    std::atomic<std::uint64_t> slot_bytes_{0};  // of our blobs: what is ours when others share the node
};

}  // namespace pnode
