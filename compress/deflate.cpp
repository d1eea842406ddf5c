// Raw DEFLATE (RFC 1951) with a window of 4 KiB: what the accelerator (iaa/) reads and writes, in software.
//
// ISA-L's igzip compresses and libdeflate decodes, as measured on 4 KiB of package catalogue: igzip level 1
// takes 14 us at a ratio of 2.68 (libdeflate 20 us at 2.75, and it has no window smaller than 32 KiB; zlib 41
// us at 2.64; igzip's levels 2 and 3 cost 20 to 40 % more and win 1 %); libdeflate decodes in 7 us, igzip in
// 10, zlib in 20.
//
// A stream says itself where it ends. What follows is ignored, so that an accelerator that tells too large a
// size does no harm.
//
// Scratch, so that one stretch can serve both directions:
//
//     | label | decoder (11 KB) | label | encoder (82 KB) | its hash table and tokens (276 KB) |
//
// libdeflate makes its decoder with an allocator that it is given: here one that hands out scratch. That
// allocator is libdeflate's only state, so it is linked statically, and a program's own libdeflate keeps its
// own.
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>

#include <algorithm>

#include "compress/codec_tables.h"
#include "compress/scratch_label.h"

namespace pnode::compress {
namespace {

constexpr std::uint64_t decoder_tag = 0x7064'9a1e'c0de'0d04;
constexpr std::uint16_t window_log = 12;
constexpr std::uint32_t level_bytes = ISAL_DEF_LVL1_LARGE;  // a token for each byte of the largest block
static_assert(level_bytes % scratch_alignment == 0);

constexpr std::size_t aligned(std::size_t bytes) {
    return (bytes + scratch_alignment - 1) / scratch_alignment * scratch_alignment;
}

// What libdeflate asked its allocator for, and what it shall get. Initial-exec: its first use in a thread
// must not allocate.
struct Asked {
    std::size_t bytes;
    void* granted;
};
thread_local Asked asked __attribute__((tls_model("initial-exec"))) = {0, nullptr};

void* grant(std::size_t bytes) {
    asked.bytes = bytes;
    return asked.granted;
}
void keep(void*) {}

// Asking for a decoder without granting one tells its size.
std::size_t decoder_bytes() {
    static const std::size_t bytes = [] {
        libdeflate_set_memory_allocator(grant, keep);
        asked.granted = nullptr;
        libdeflate_alloc_decompressor();
        return aligned(asked.bytes);
    }();
    return bytes;
}

std::size_t decompress_scratch_bytes() {
    return sizeof(ScratchLabel) + decoder_bytes();
}
std::size_t scratch_bytes(int) {
    return decompress_scratch_bytes() + sizeof(ScratchLabel) + aligned(sizeof(isal_zstream)) + level_bytes;
}

// Incompressible blocks are stored: 5 bytes for each 64 KiB at most; igzip wants room for a header before it
// decides that.
std::size_t bound(std::size_t source_bytes) {
    return source_bytes + 64;
}

// nullptr when the scratch is too small.
libdeflate_decompressor* decoder_in(MutableBytes scratch) noexcept {
    if (scratch.size() < decompress_scratch_bytes()) return nullptr;
    ScratchLabel* const label = scratch_label(scratch);
    if (!label->names(decoder_tag, decoder_bytes(), 0)) {
        asked.granted = scratch.data() + sizeof(ScratchLabel);
        label->set(decoder_tag, libdeflate_alloc_decompressor(), decoder_bytes(), 0);
    }
    return static_cast<libdeflate_decompressor*>(label->context);
}

std::size_t compress(Bytes source, MutableBytes destination, int, MutableBytes scratch) noexcept {
    if (source.size() > block_bytes_max || scratch.size() < scratch_bytes(0)) return 0;
    const MutableBytes memory = scratch.subspan(decompress_scratch_bytes());
    scratch_label(memory)->clear();  // the encoder overwrites what another codec had here
    auto* const stream = reinterpret_cast<isal_zstream*>(memory.data() + sizeof(ScratchLabel));
    isal_deflate_stateless_init(stream);
    stream->level = 1;
    stream->level_buf = reinterpret_cast<std::uint8_t*>(stream) + aligned(sizeof *stream);
    stream->level_buf_size = level_bytes;
    stream->hist_bits = window_log;
    stream->end_of_stream = 1;
    stream->flush = NO_FLUSH;
    stream->next_in = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(source.data()));  // only read
    stream->avail_in = static_cast<std::uint32_t>(source.size());
    stream->next_out = reinterpret_cast<std::uint8_t*>(destination.data());
    stream->avail_out = static_cast<std::uint32_t>(std::min(destination.size(), bound(block_bytes_max)));
    return isal_deflate_stateless(stream) == COMP_OK && stream->avail_in == 0 ? stream->total_out : 0;
}

bool decompress(Bytes source, MutableBytes destination, MutableBytes scratch) noexcept {
    libdeflate_decompressor* const decoder = decoder_in(scratch);
    return decoder != nullptr &&
           libdeflate_deflate_decompress(decoder, source.data(), source.size(), destination.data(),
                                         destination.size(), nullptr) == LIBDEFLATE_SUCCESS;
}

}  // namespace

constinit const Codec deflate_codec = {
    .id = CodecId::deflate,
    .name = "deflate",
    .level_min = 0,
    .level_max = 0,
    .level_default = 0,
    .block_bytes_max = block_bytes_max,
    .scratch_bytes = scratch_bytes,
    .decompress_scratch_bytes = decompress_scratch_bytes,
    .bound = bound,
    .compress = compress,
    .decompress = decompress,
};

}  // namespace pnode::compress
