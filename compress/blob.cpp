#include "compress/blob.h"

#define XXH_STATIC_LINKING_ONLY  // XXH3_generateSecret
#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // XXH3_* by the widest vectors of this CPU: six times as fast as the plain ones
#endif

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "compress/codec_tables.h"
#include "compress/iaa/accelerator.h"

namespace pnode::compress {
namespace {

constexpr std::uint8_t blob_version = 1;

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

DecodeResult check(const Header& header, std::size_t blob_bytes, std::size_t contents_bytes) noexcept {
    if (header.version != blob_version) return DecodeResult::bad_version;
    const std::size_t bound = bound_of(header.codec, contents_bytes);
    if (bound == 0) return DecodeResult::unknown_codec;
    if (!is_block_size(contents_bytes) || header.source_units * block_bytes_min != contents_bytes)
        return DecodeResult::wrong_source_size;
    if (header.payload_bytes == 0 || header.payload_bytes > bound) return DecodeResult::bad_payload_size;
    if (header.payload_bytes > blob_bytes - blob_header_bytes) return DecodeResult::truncated;
    return DecodeResult::ok;
}

// The blob's size; 0 when there is no payload.
std::size_t put_header(Bytes contents, const ContentHash& hash, CodecId codec, std::size_t payload_bytes,
                       MutableBytes blob) noexcept {
    if (payload_bytes == 0) return 0;
    const Header header = {hash, codec, blob_version,
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

DecodeResult decompress_with(const DictionaryCodec& codec, const Dictionary& dictionary, Bytes payload,
                             MutableBytes contents, MutableBytes scratch) noexcept {
    return codec.decompress(payload.subspan(version_bytes), contents, dictionary, scratch)
               ? DecodeResult::ok
               : DecodeResult::decode_failed;
}

}  // namespace

BlobKey::BlobKey(std::span<const std::byte, 32> seed) noexcept {
    // Fails only for sizes below its minima, which these constants are not.
    if (XXH3_generateSecret(secret_, sizeof secret_, seed.data(), seed.size()) != XXH_OK) std::abort();
    // The first long hash of a process asks the CPU for its features, which is slow on a virtual machine: not
    // in a fault.
    static constexpr std::byte long_input[256] = {};
    hash(Bytes(long_input));
}

ContentHash BlobKey::hash(Bytes contents) const noexcept {
    const XXH128_hash_t hash =
        XXH3_128bits_withSecret(contents.data(), contents.size(), secret_, sizeof secret_);
    return {hash.low64, hash.high64};
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
    const MutableBytes payload = blob.subspan(blob_header_bytes);
    CodecId id = CodecId::same_filled;
    std::size_t payload_bytes = same_filled_codec.compress(contents, payload, 0, {});
    const DictionaryCodec* const with =
        choice.dictionary == nullptr ? nullptr : dictionary_codec_of(choice.codec);
    if (payload_bytes == 0 && with != nullptr) {
        id = with->id;
        payload_bytes = compress_with(*with, *choice.dictionary, contents, payload, scratch);
    } else if (payload_bytes == 0 && choice.codec != nullptr) {
        id = choice.codec->id;
        payload_bytes = choice.codec->compress(contents, payload, choice.level, scratch);
    }
    return put_header(contents, hash, id, payload_bytes, blob);
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
    const DecodeResult checked = check(header, blob.size(), contents.size());
    if (checked != DecodeResult::ok) return checked;
    const Bytes payload = blob.subspan(blob_header_bytes, header.payload_bytes);
    if (accelerator != nullptr && header.codec == CodecId::deflate &&
        accelerator->decompress(payload, contents)) {
        if (key.hash(contents) == header.hash) return DecodeResult::ok;
        accelerator->decompressed_wrongly();
    }
    const DictionaryCodec* const with = dictionary_codec_by_id(header.codec);
    DecodeResult result = DecodeResult::ok;
    if (with != nullptr) {
        if (payload.size() <= version_bytes) return DecodeResult::bad_payload_size;
        if (dictionary == nullptr || dictionary->version() != version_of(payload))
            return DecodeResult::missing_dictionary;
        result = decompress_with(*with, *dictionary, payload, contents, scratch);
    } else if (!codec_by_id(header.codec)->decompress(payload, contents, scratch)) {
        result = DecodeResult::decode_failed;
    }
    if (result == DecodeResult::ok && key.hash(contents) != header.hash) result = DecodeResult::hash_mismatch;
    // Only for the report: nothing is right any more, and it may be the dictionary that is wrong.
    if (result != DecodeResult::ok && with != nullptr && !dictionary->is_intact())
        return DecodeResult::bad_dictionary;
    return result;
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
    if (dictionary_codec_by_id(header_of(blob).codec) == nullptr) return false;
    *version = version_of(blob.subspan(blob_header_bytes));
    return true;
}

std::size_t stored_blob_bytes(Bytes blob) noexcept {
    return blob_header_bytes + header_of(blob).payload_bytes;
}

}  // namespace pnode::compress
