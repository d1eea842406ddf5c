// Any bytes as a blob: decode() answers, writes nothing beside the block, and says ok only to bytes whose
// keyed hash is the stored one.
//
// The input's first byte says how the rest is used, so that more than the header's checks is reached:
//   0  the rest is the blob
//   1  the rest is a payload behind a header that is in order, the hash apart
//   2  the rest is a block, encoded, then damaged in one place; ok must mean the block itself
//   3  the rest is the blob of a block of pages
//   4  the rest is pages, encoded as a block, then damaged in one place; a proven page must be itself
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "compress/blob.h"

namespace {

using namespace pnode::compress;

constexpr std::size_t guard_bytes = 64;
constexpr std::byte guard{0xA5};
constexpr std::size_t scratch_bytes = 2 << 20;
alignas(scratch_alignment) std::byte scratch_memory[scratch_bytes];
const MutableBytes scratch(scratch_memory);

const BlobKey& key() {
    static const BlobKey made{std::array<std::byte, 32>{}};
    return made;
}

void require(bool holds) {
    if (!holds) std::abort();
}

// Takes bytes off the front of the input; zeros when it is used up.
class Input {
  public:
    explicit Input(Bytes bytes) : bytes_(bytes) {}
    std::size_t number(std::size_t below) {
        std::uint32_t value = 0;
        const std::size_t taken = std::min(sizeof value, bytes_.size());
        std::memcpy(&value, bytes_.data(), taken);
        bytes_ = bytes_.subspan(taken);
        return value % below;
    }
    Bytes rest() const { return bytes_; }

  private:
    Bytes bytes_;
};

struct Decoded {
    DecodeResult result;
    std::vector<std::byte> contents;
};

Decoded decode_guarded(Bytes blob, std::size_t block_bytes) {
    const std::vector<std::byte> exact(blob.begin(),
                                       blob.end());  // of its own, so that a sanitizer sees its end
    std::vector<std::byte> memory(block_bytes + 2 * guard_bytes, guard);
    const MutableBytes contents = MutableBytes(memory).subspan(guard_bytes, block_bytes);
    const DecodeResult result = decode(exact, key(), contents, scratch);
    const auto is_guard = [](std::byte b) { return b == guard; };
    require(std::all_of(memory.begin(), memory.begin() + guard_bytes, is_guard));
    require(std::all_of(memory.end() - guard_bytes, memory.end(), is_guard));
    if (result == DecodeResult::ok) require(key().hash(contents) == stored_hash(exact));
    return {result, {contents.begin(), contents.end()}};
}

std::size_t block_bytes_from(Input& input) {
    return (1 + input.number(block_bytes_max / block_bytes_min)) * block_bytes_min;
}

void decode_anything(Input input) {
    const std::size_t block_bytes = block_bytes_from(input);
    decode_guarded(input.rest(), block_bytes);
}

void decode_payload(Input input) {
    const std::size_t block_bytes = block_bytes_from(input);
    std::vector<std::byte> blob(blob_header_bytes);
    blob[16] = static_cast<std::byte>(1 + input.number(4));
    blob[17] = std::byte{1};
    const auto units = static_cast<std::uint16_t>(block_bytes / block_bytes_min);
    const auto payload_bytes = static_cast<std::uint32_t>(input.rest().size());
    std::memcpy(blob.data() + 18, &units, sizeof units);
    std::memcpy(blob.data() + 20, &payload_bytes, sizeof payload_bytes);
    blob.insert(blob.end(), input.rest().begin(), input.rest().end());
    decode_guarded(blob, block_bytes);
}

void decode_damaged(Input input) {
    constexpr const char* choices[] = {"lz4", "zstd:-3", "zstd:1", "zstd:5", "deflate"};
    CodecChoice choice;
    require(parse_codec_choice(choices[input.number(std::size(choices))], &choice));
    const std::size_t where = input.number(SIZE_MAX);
    const auto change = static_cast<std::byte>(input.number(256));  // 0: none
    std::vector<std::byte> block(input.rest().begin(), input.rest().end());
    block.resize(
        std::clamp(block.size() / block_bytes_min * block_bytes_min, block_bytes_min, block_bytes_max));

    std::vector<std::byte> blob(blob_header_bytes + choice.codec->bound(block.size()));
    const std::size_t blob_bytes = encode(block, key().hash(block), choice, blob, scratch);
    require(blob_bytes != 0);
    blob.resize(blob_bytes);
    blob[where % blob_bytes] ^= change;
    const Decoded decoded = decode_guarded(blob, block.size());
    if (change == std::byte{0}) require(decoded.result == DecodeResult::ok);
    if (decoded.result == DecodeResult::ok) require(decoded.contents == block);
}

std::vector<std::byte> decode_pages_guarded(Bytes blob, std::size_t block_bytes, DecodeResult* result) {
    const std::vector<std::byte> exact(blob.begin(), blob.end());
    std::vector<std::byte> memory(block_bytes + 2 * guard_bytes, guard);
    const MutableBytes contents = MutableBytes(memory).subspan(guard_bytes, block_bytes);
    *result = decode_pages(exact, contents, scratch);
    const auto is_guard = [](std::byte b) { return b == guard; };
    require(std::all_of(memory.begin(), memory.begin() + guard_bytes, is_guard));
    require(std::all_of(memory.end() - guard_bytes, memory.end(), is_guard));
    return {contents.begin(), contents.end()};
}

void decode_anything_as_pages(Input input) {
    const std::size_t pages = 1 + input.number(16);
    DecodeResult result;
    decode_pages_guarded(input.rest(), pages * hashed_bytes, &result);
    Dictionary::Version version = 0;
    stored_dictionary(input.rest(), &version);
}

void decode_damaged_pages(Input input) {
    constexpr const char* choices[] = {"lz4", "zstd:1", "zstd:5"};
    CodecChoice choice;
    require(parse_codec_choice(choices[input.number(std::size(choices))], &choice));
    const std::size_t pages = 2 + input.number(15);
    const std::size_t where = input.number(SIZE_MAX);
    const auto change = static_cast<std::byte>(input.number(256));  // 0: none
    std::vector<std::byte> block(input.rest().begin(), input.rest().end());
    block.resize(pages * hashed_bytes);
    std::vector<ContentHash> hashes;
    for (std::size_t page = 0; page < pages; ++page)
        hashes.push_back(key().hash(Bytes(block).subspan(page * hashed_bytes, hashed_bytes)));

    std::vector<std::byte> blob(block_header_bytes(pages) + choice.codec->bound(block.size()));
    const std::size_t blob_bytes = encode_pages(block, hashes, choice, blob, scratch);
    require(blob_bytes != 0);
    blob.resize(blob_bytes);
    blob[where % blob_bytes] ^= change;
    DecodeResult result;
    const std::vector<std::byte> decoded = decode_pages_guarded(blob, block.size(), &result);
    if (change == std::byte{0}) require(result == DecodeResult::ok && decoded == block);
    if (result != DecodeResult::ok) return;
    for (std::size_t page = 0; page < pages; ++page) {
        const Bytes contents = Bytes(decoded).subspan(page * hashed_bytes, hashed_bytes);
        if (key().hash(contents) != stored_hash_of(blob, page)) continue;
        require(std::equal(contents.begin(), contents.end(), block.begin() + page * hashed_bytes));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const Input input(std::as_bytes(std::span(data, size)).subspan(1));
    switch (data[0] % 5) {
        case 0:
            decode_anything(input);
            break;
        case 1:
            decode_payload(input);
            break;
        case 2:
            decode_damaged(input);
            break;
        case 3:
            decode_anything_as_pages(input);
            break;
        case 4:
            decode_damaged_pages(input);
            break;
    }
    return 0;
}
