// A corpus stored one way: how many bytes it takes in the store, and how long it took to get it there and
// back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/codec/scratch.h"
#include "bench/codec/variant.h"
#include "compress/dictionary.h"

namespace pnode::bench {

struct PageTimes {
    double p50_ns = 0, p99_ns = 0;  // of blocks, divided by their pages
};

struct Packed {
    std::uint64_t pages = 0;         // of the corpus
    std::uint64_t stored_pages = 0;  // in blobs, or zero, which takes nothing
    std::uint64_t zero_pages = 0;
    std::uint64_t far_bytes = 0;  // physical: blobs, their headers, slots, slabs, the dictionary
    std::uint64_t slot_bytes = 0, blob_bytes = 0;  // of these
    PageTimes compress;                            // of blocks that are not zero, stored or not
    PageTimes decode;                              // of those stored, the proof by their hash included

    // What does not save an eighth stays where it is.
    std::uint64_t near_bytes() const { return (pages - stored_pages) * 4096; }
    std::uint64_t total_bytes() const { return far_bytes + near_bytes(); }
};

// What a corpus' blocks have in common, trained on a sixteenth of its pages, as a heap's would be; on more of
// a small one's.
class TrainedContent {
  public:
    explicit TrainedContent(compress::Bytes corpus);
    bool is_trained() const { return !content_.empty(); }
    compress::Bytes content() const { return content_; }

  private:
    std::vector<std::byte> content_;
};

// Every stored block is decoded and compared. Throws std::runtime_error: a block came back wrong, no
// dictionary can be trained, no accelerator can be had.
Packed pack(compress::Bytes corpus, const Variant& variant, const TrainedContent& trained);

}  // namespace pnode::bench
