// A blob: a block's compressed bytes as they are stored, with what it takes to prove them right.
//
//     | hash 16 | codec 1 | version 1 | source_units 2 | payload_bytes 4 | payload ... |
//
// With a dictionary the payload begins with the dictionary's version, two bytes.
//
// The hash is a keyed 128-bit xxh3 of the block's *contents*: it proves a decode, and the same number tells
// whether a page that was promoted has changed since, so that an unchanged one is dropped and not compressed
// again.
//
// Made by encode_pages(), it has a hash for each 4 KiB instead, so that each page is proven and recognised
// alone:
//
//     | first hash 16 | codec 1 | version 1 | source_units 2 | payload_bytes 4 | other hashes | payload ... |
//
// Thread rule: as codec.h.
#pragma once

#include "compress/codec.h"
#include "compress/dictionary.h"
#include "compress/keyed_hash.h"

namespace pnode::compress {

namespace iaa {
class Accelerator;
}

struct ContentHash {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    bool operator==(const ContentHash&) const = default;
};

// Secret of a node's blobs, made from 32 random bytes; xxh3 wants at least 136 bytes, its default is 192.
class BlobKey {
  public:
    static constexpr std::size_t secret_bytes = 192;
    explicit BlobKey(std::span<const std::byte, 32> seed) noexcept;
    // Any number of bytes; the same on every CPU.
    ContentHash hash(Bytes contents) const noexcept;

  private:
    KeyedHashFunction hash_;
    alignas(64) std::byte secret_[secret_bytes];
};

inline constexpr std::size_t blob_header_bytes = 24;
inline constexpr std::size_t block_bytes_min = 64;  // blocks are multiples of this, up to 64 KiB

// Scratch (rules in codec.h) for encode with `choice`, also with a dictionary where it says that there will
// be one, and for decode of any blob. One stretch as large as the larger of the two may serve both.
std::size_t encode_scratch_bytes(const CodecChoice& choice) noexcept;
std::size_t decode_scratch_bytes_max() noexcept;

// Bytes of blob written to `blob`, or 0: did not fit in it. Tries same-filled (one repeated 64-bit word)
// first, then the choice. `hash` is key.hash(contents), which the caller has usually computed already. How
// far `blob` reaches says what saving is worth storing. A choice without a codec encodes same-filled blocks
// only.
std::size_t encode(Bytes contents, const ContentHash& hash, const CodecChoice& choice, MutableBytes blob,
                   MutableBytes scratch) noexcept;

// The same for many blocks, by an accelerator where it can. Each job's blob_bytes is what encode() would
// return; the blobs are read by whoever reads encode()'s.
struct EncodeJob {
    Bytes contents;
    ContentHash hash;
    MutableBytes blob;
    std::size_t blob_bytes = 0;
};
void encode(std::span<EncodeJob> jobs, const CodecChoice& choice, MutableBytes scratch,
            iaa::Accelerator& accelerator) noexcept;

enum class DecodeResult : std::uint8_t {
    ok,
    truncated,
    bad_version,
    unknown_codec,
    wrong_source_size,
    bad_payload_size,
    decode_failed,
    hash_mismatch,
    missing_dictionary,
    bad_dictionary
};
const char* describe(DecodeResult result) noexcept;

// Decodes into `contents`, whose size must be the block's. `blob` may be longer than the blob in it (a
// store's slot is). Each header field is read once. Anything but ok leaves `contents` unspecified and must
// not be shown to anyone. `accelerator` may be null; what it decodes is proven like the rest, and done again
// in software if it is wrong. `dictionary`: the one the blob was made with, if it names one; the caller sees
// to it that it lives as long.
DecodeResult decode(Bytes blob, const BlobKey& key, MutableBytes contents, MutableBytes scratch,
                    iaa::Accelerator* accelerator = nullptr, const Dictionary* dictionary = nullptr) noexcept;

// A block with a hash for each 4 KiB of it, two at least; encode()'s rules otherwise.
inline constexpr std::size_t hashed_bytes = 4096;
std::size_t encode_pages(Bytes contents, std::span<const ContentHash> hashes, const CodecChoice& choice,
                         MutableBytes blob, MutableBytes scratch) noexcept;
// The contents, decoded and not proven: that is the caller's, page by page, with stored_hash_of().
DecodeResult decode_pages(Bytes blob, MutableBytes contents, MutableBytes scratch,
                          const Dictionary* dictionary = nullptr) noexcept;
// Of a page of such a block, unchecked; `blob` reaches behind the hashes.
ContentHash stored_hash_of(Bytes blob, std::size_t page) noexcept;
inline constexpr std::size_t block_header_bytes(std::size_t pages) {
    return blob_header_bytes + (pages - 1) * sizeof(ContentHash);
}

// Of a blob's header, unchecked; blob.size() >= blob_header_bytes.
ContentHash stored_hash(Bytes blob) noexcept;
std::size_t stored_blob_bytes(Bytes blob) noexcept;
// True where the blob names a dictionary, whose version is then stored. False for a blob that ends before.
bool stored_dictionary(Bytes blob, Dictionary::Version* version) noexcept;

// All of `contents` one 64-bit word? And is that word zero? contents.size() is a multiple of 8.
bool is_same_filled(Bytes contents, std::uint64_t* word) noexcept;

}  // namespace pnode::compress
