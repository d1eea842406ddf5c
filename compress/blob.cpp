#include "compress/blob.h"

#define XXH_INLINE_ALL  // keyed_hash.h
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "compress/codec_tables.h"
#include "compress/iaa/accelerator.h"

namespace pnode::compress {
namespace {

constexpr std::uint8_t blob_version = 1;
constexpr std::uint8_t pages_version = 2;  // a hash for each page

// As stored. Byte order is the machine's: a region does not outlive the machine it is mapped on.
struct Header {
    ContentHash hash;
    CodecId codec;
    std::uint8_t version;
    std::uint16_t source_units;  // of block_bytes_min
    std::uint32_t payload_bytes;
};
static_assert(sizeof(Header) == blob_header_bytes);
static_assert(offsetof(Header, codec) == 16 && offsetof(Header, version) == 17);
static_assert(offsetof(Header, source_units) == 18 && offsetof(Header, payload_bytes) == 20);
static_assert(std::endian::native == std::endian::little);
static_assert(block_bytes_max / block_bytes_min <= UINT16_MAX);

Header header_of(Bytes blob) noexcept {
    Header header;
    std::memcpy(&header, blob.data(), sizeof header);
    return header;
}

constexpr std::size_t version_bytes = sizeof(Dictionary::Version);

Dictionary::Version version_of(Bytes payload) noexcept {
    Dictionary::Version version;
    std::memcpy(&version, payload.data(), sizeof version);
    return version;
}

// Output that suffices for any payload of a codec; 0 for an unknown codec.
std::size_t bound_of(CodecId id, std::size_t contents_bytes) noexcept {
    if (const Codec* const codec = codec_by_id(id)) return codec->bound(contents_bytes);
    const DictionaryCodec* const with = dictionary_codec_by_id(id);
    return with == nullptr ? 0 : with->base->bound(contents_bytes) + version_bytes;
}

bool is_block_size(std::size_t bytes) noexcept {
    return bytes >= block_bytes_min && bytes <= block_bytes_max && bytes % block_bytes_min == 0;
}

DecodeResult check(const Header& header, std::uint8_t version, std::size_t payload_bytes_max,
                   std::size_t contents_bytes) noexcept {
    if (header.version != version) return DecodeResult::bad_version;
    const std::size_t bound = bound_of(header.codec, contents_bytes);
    if (bound == 0) return DecodeResult::unknown_codec;
    if (!is_block_size(contents_bytes) || header.source_units * block_bytes_min != contents_bytes)
        return DecodeResult::wrong_source_size;
    if (header.payload_bytes == 0 || header.payload_bytes > bound) return DecodeResult::bad_payload_size;
    if (header.payload_bytes > payload_bytes_max) return DecodeResult::truncated;
    return DecodeResult::ok;
}

// The blob's size; 0 when there is no payload.
std::size_t put_header(Bytes contents, const ContentHash& hash, CodecId codec, std::size_t payload_bytes,
                       MutableBytes blob, std::uint8_t version = blob_version) noexcept {
    if (payload_bytes == 0) return 0;
    const Header header = {hash, codec, version,
                           static_cast<std::uint16_t>(contents.size() / block_bytes_min),
                           static_cast<std::uint32_t>(payload_bytes)};
    std::memcpy(blob.data(), &header, sizeof header);
    return blob_header_bytes + payload_bytes;
}

// | version 2 | what the codec wrote |, or 0.
std::size_t compress_with(const DictionaryCodec& codec, const Dictionary& dictionary, Bytes contents,
                          MutableBytes payload, MutableBytes scratch) noexcept {
    if (payload.size() <= version_bytes) return 0;
    const std::size_t bytes = codec.compress(contents, payload.subspan(version_bytes), dictionary, scratch);
    if (bytes == 0) return 0;
    const Dictionary::Version version = dictionary.version();
    std::memcpy(payload.data(), &version, sizeof version);
    return version_bytes + bytes;
}

struct Payload {
    CodecId codec;
    std::size_t bytes;  // 0: did not fit
};
Payload encode_payload(Bytes contents, const CodecChoice& choice, MutableBytes payload,
                       MutableBytes scratch) noexcept {
    if (const std::size_t bytes = same_filled_codec.compress(contents, payload, 0, {}))
        return {CodecId::same_filled, bytes};
    const DictionaryCodec* const with =
        choice.dictionary == nullptr ? nullptr : dictionary_codec_of(choice.codec);
    if (with != nullptr)
        return {with->id, compress_with(*with, *choice.dictionary, contents, payload, scratch)};
    if (choice.codec == nullptr) return {CodecId::none, 0};
    return {choice.codec->id, choice.codec->compress(contents, payload, choice.level, scratch)};
}

DecodeResult decompress_with(const DictionaryCodec& codec, const Dictionary& dictionary, Bytes payload,
                             MutableBytes contents, MutableBytes scratch) noexcept {
    return codec.decompress(payload.subspan(version_bytes), contents, dictionary, scratch)
               ? DecodeResult::ok
               : DecodeResult::decode_failed;
}

DecodeResult decode_payload(CodecId codec, Bytes payload, MutableBytes contents, MutableBytes scratch,
                            const Dictionary* dictionary) noexcept {
    const DictionaryCodec* const with = dictionary_codec_by_id(codec);
    if (with == nullptr)
        return codec_by_id(codec)->decompress(payload, contents, scratch) ? DecodeResult::ok
                                                                          : DecodeResult::decode_failed;
    if (payload.size() <= version_bytes) return DecodeResult::bad_payload_size;
    if (dictionary == nullptr || dictionary->version() != version_of(payload))
        return DecodeResult::missing_dictionary;
    return decompress_with(*with, *dictionary, payload, contents, scratch);
}

// Only for the report: nothing is right any more, and it may be the dictionary that is wrong.
DecodeResult blame(DecodeResult result, CodecId codec, const Dictionary* dictionary) noexcept {
    if (result == DecodeResult::ok || result == DecodeResult::missing_dictionary) return result;
    const bool is_dictionary = dictionary != nullptr && dictionary_codec_by_id(codec) != nullptr;
    return is_dictionary && !dictionary->is_intact() ? DecodeResult::bad_dictionary : result;
}

}  // namespace

BlobKey::BlobKey(std::span<const std::byte, 32> seed) noexcept : hash_(widest_keyed_hash()) {
    // Fails only for sizes below its minima, which these constants are not.
    if (XXH3_generateSecret(secret_, sizeof secret_, seed.data(), seed.size()) != XXH_OK) std::abort();
}

ContentHash BlobKey::hash(Bytes contents) const noexcept {
    const KeyedHash hash = hash_(contents.data(), contents.size(), secret_, sizeof secret_);
    return {hash.low, hash.high};
}

std::size_t encode_scratch_bytes(const CodecChoice& choice) noexcept {
    if (choice.codec == nullptr) return 0;
    const std::size_t bytes = choice.codec->scratch_bytes(choice.level);
    const DictionaryCodec* const with = dictionary_codec_of(choice.codec);
    if (with == nullptr) return bytes;
    if (choice.dictionary != nullptr) return with->scratch_bytes(choice.level);
    return choice.recompress_level == 0 ? bytes
                                        : std::max(bytes, with->scratch_bytes(choice.recompress_level));
}

std::size_t decode_scratch_bytes_max() noexcept {
    std::size_t bytes = 0;
    for (const Codec* codec : codecs()) bytes = std::max(bytes, codec->decompress_scratch_bytes());
    return bytes;
}

std::size_t encode(Bytes contents, const ContentHash& hash, const CodecChoice& choice, MutableBytes blob,
                   MutableBytes scratch) noexcept {
    if (!is_block_size(contents.size()) || blob.size() <= blob_header_bytes) return 0;
    const Payload payload = encode_payload(contents, choice, blob.subspan(blob_header_bytes), scratch);
    return put_header(contents, hash, payload.codec, payload.bytes, blob);
}

std::size_t encode_pages(Bytes contents, std::span<const ContentHash> hashes, const CodecChoice& choice,
                         MutableBytes blob, MutableBytes scratch) noexcept {
    const std::size_t before = block_header_bytes(hashes.size());
    if (hashes.size() < 2 || contents.size() != hashes.size() * hashed_bytes) return 0;
    if (!is_block_size(contents.size()) || blob.size() <= before) return 0;
    const Payload payload = encode_payload(contents, choice, blob.subspan(before), scratch);
    if (put_header(contents, hashes[0], payload.codec, payload.bytes, blob, pages_version) == 0) return 0;
    std::memcpy(blob.data() + blob_header_bytes, &hashes[1], (hashes.size() - 1) * sizeof(ContentHash));
    return before + payload.bytes;
}

void encode(std::span<EncodeJob> jobs, const CodecChoice& choice, MutableBytes scratch,
            iaa::Accelerator& accelerator) noexcept {
    constexpr std::size_t batch = iaa::Accelerator::batch_max;
    for (; !jobs.empty(); jobs = jobs.subspan(std::min(jobs.size(), batch))) {
        iaa::CompressJob offloaded[batch];
        EncodeJob* owners[batch];
        std::size_t count = 0;
        for (EncodeJob& job : jobs.first(std::min(jobs.size(), batch))) {
            const bool suits = job.contents.size() == iaa::page_bytes && job.blob.size() > blob_header_bytes;
            // Same-filled blocks, and blocks of sizes that are not offloaded.
            job.blob_bytes =
                encode(job.contents, job.hash, suits ? CodecChoice{} : choice, job.blob, scratch);
            if (!suits || job.blob_bytes != 0) continue;
            offloaded[count] = {job.contents, job.blob.subspan(blob_header_bytes), 0};
            owners[count++] = &job;
        }
        accelerator.compress({offloaded, count}, scratch);
        for (std::size_t i = 0; i < count; ++i)
            owners[i]->blob_bytes = put_header(owners[i]->contents, owners[i]->hash, CodecId::deflate,
                                               offloaded[i].bytes_written, owners[i]->blob);
    }
}

DecodeResult decode(Bytes blob, const BlobKey& key, MutableBytes contents, MutableBytes scratch,
                    iaa::Accelerator* accelerator, const Dictionary* dictionary) noexcept {
    if (blob.size() < blob_header_bytes) return DecodeResult::truncated;
    // One copy: the region may be written by others while this runs, and what was checked must be what is
    // used.
    const Header header = header_of(blob);
    const DecodeResult checked =
        check(header, blob_version, blob.size() - blob_header_bytes, contents.size());
    if (checked != DecodeResult::ok) return checked;
    const Bytes payload = blob.subspan(blob_header_bytes, header.payload_bytes);
    if (accelerator != nullptr && header.codec == CodecId::deflate &&
        accelerator->decompress(payload, contents)) {
        if (key.hash(contents) == header.hash) return DecodeResult::ok;
        accelerator->decompressed_wrongly();
    }
    DecodeResult result = decode_payload(header.codec, payload, contents, scratch, dictionary);
    if (result == DecodeResult::ok && key.hash(contents) != header.hash) result = DecodeResult::hash_mismatch;
    return blame(result, header.codec, dictionary);
}

DecodeResult decode_pages(Bytes blob, MutableBytes contents, MutableBytes scratch,
                          const Dictionary* dictionary) noexcept {
    const std::size_t before = block_header_bytes(contents.size() / hashed_bytes);
    if (contents.size() < 2 * hashed_bytes || contents.size() % hashed_bytes != 0)
        return DecodeResult::wrong_source_size;
    if (blob.size() < before) return DecodeResult::truncated;
    const Header header = header_of(blob);
    const DecodeResult checked = check(header, pages_version, blob.size() - before, contents.size());
    if (checked != DecodeResult::ok) return checked;
    const DecodeResult result = decode_payload(header.codec, blob.subspan(before, header.payload_bytes),
                                               contents, scratch, dictionary);
    return blame(result, header.codec, dictionary);
}

const char* describe(DecodeResult result) noexcept {
    switch (result) {
        case DecodeResult::ok:
            return "ok";
        case DecodeResult::truncated:
            return "the blob ends before its payload does";
        case DecodeResult::bad_version:
            return "the blob is of an unknown version";
        case DecodeResult::unknown_codec:
            return "the blob names an unknown codec";
        case DecodeResult::wrong_source_size:
            return "the blob is of a block of another size";
        case DecodeResult::bad_payload_size:
            return "the blob's payload size is impossible";
        case DecodeResult::decode_failed:
            return "the payload does not decode";
        case DecodeResult::hash_mismatch:
            return "the decoded bytes do not have the stored hash";
        case DecodeResult::missing_dictionary:
            return "the dictionary that the blob names is not there";
        case DecodeResult::bad_dictionary:
            return "the dictionary that the blob names has changed";
    }
    return "not a result of decode";
}

ContentHash stored_hash(Bytes blob) noexcept {
    return header_of(blob).hash;
}

bool stored_dictionary(Bytes blob, Dictionary::Version* version) noexcept {
    if (blob.size() < blob_header_bytes + version_bytes) return false;
    const Header header = header_of(blob);
    if (dictionary_codec_by_id(header.codec) == nullptr) return false;
    const std::size_t pages = header.source_units * block_bytes_min / hashed_bytes;
    const std::size_t before =
        header.version == pages_version && pages > 1 ? block_header_bytes(pages) : blob_header_bytes;
    if (blob.size() < before + version_bytes) return false;
    *version = version_of(blob.subspan(before));
    return true;
}

ContentHash stored_hash_of(Bytes blob, std::size_t page) noexcept {
    if (page == 0) return stored_hash(blob);
    ContentHash hash;
    std::memcpy(&hash, blob.data() + blob_header_bytes + (page - 1) * sizeof hash, sizeof hash);
    return hash;
}

std::size_t stored_blob_bytes(Bytes blob) noexcept {
    return blob_header_bytes + header_of(blob).payload_bytes;
}

}  // namespace pnode::compress
