// LZ4's block format, no frame.
//
// LZ4_compress_fast_extState() clears its 16 KiB table at each call, which costs 0.2 us of 5. Both ways
// around it lose: fastReset clears too from 4 KiB of input on (and Debian's library does not export it), and
// a stream that is continued keeps its table but then hashes into 32-bit entries and checks each candidate
// for being of an older block: 7 us a page, and a worse ratio (bench/codec: lz4 4 KiB). Clearing has one more
// virtue: the result depends on the block alone.
#include <lz4.h>

#include <algorithm>

#include "compress/codec_tables.h"
#include "compress/scratch_label.h"

namespace pnode::compress {
namespace {

std::size_t scratch_bytes(int) {
    return sizeof(ScratchLabel) + sizeof(LZ4_stream_t);
}

std::size_t bound(std::size_t source_bytes) {
    return static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(source_bytes)));
}

const char* chars(Bytes bytes) {
    return reinterpret_cast<const char*>(bytes.data());
}
char* chars(MutableBytes bytes) {
    return reinterpret_cast<char*>(bytes.data());
}

std::size_t compress(Bytes source, MutableBytes destination, int, MutableBytes scratch) noexcept {
    if (source.size() > block_bytes_max || scratch.size() < scratch_bytes(0)) return 0;
    scratch_label(scratch)->clear();  // the table overwrites what another codec had here
    const int room = static_cast<int>(std::min(destination.size(), bound(block_bytes_max)));
    const int written =
        LZ4_compress_fast_extState(scratch.data() + sizeof(ScratchLabel), chars(source), chars(destination),
                                   static_cast<int>(source.size()), room, 1);
    return written > 0 ? static_cast<std::size_t>(written) : 0;
}

bool decompress(Bytes source, MutableBytes destination, MutableBytes) noexcept {
    if (source.size() > bound(block_bytes_max) || destination.size() > block_bytes_max) return false;
    const int wanted = static_cast<int>(destination.size());
    return LZ4_decompress_safe(chars(source), chars(destination), static_cast<int>(source.size()), wanted) ==
           wanted;
}

}  // namespace

constinit const Codec lz4_codec = {
    .id = CodecId::lz4,
    .name = "lz4",
    .level_min = 0,
    .level_max = 0,
    .level_default = 0,
    .block_bytes_max = block_bytes_max,
    .scratch_bytes = scratch_bytes,
    .decompress_scratch_bytes = no_decompress_scratch,
    .bound = bound,
    .compress = compress,
    .decompress = decompress,
};

}  // namespace pnode::compress
