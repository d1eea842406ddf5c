// What an Intel In-Memory Analytics Accelerator reads and writes: descriptor, completion record, and AECS
// (analytics engine configuration and state: here the Huffman codes to compress with).
//
// Layouts are those of the kernel's <linux/idxd.h> and of its iaa_crypto driver; a test holds them against
// the former. Plain data: no thread rule of its own. Where several things describe the same bytes, the device
// and we agree on the order: it writes Completion::status last.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pnode::compress::iaa {

inline constexpr std::size_t page_bytes = 4096;    // the one block size that is offloaded
inline constexpr std::size_t portal_bytes = 4096;  // any 64-byte offset of it addresses the same queue
inline constexpr std::size_t window_bytes = 4096;  // furthest distance the device knows

enum class Opcode : std::uint8_t { noop = 0, decompress = 0x42, compress = 0x43 };

namespace flag {
inline constexpr std::uint32_t block_on_fault = 0x2;  // only where the queue has it
inline constexpr std::uint32_t completion_address_valid = 0x4;
inline constexpr std::uint32_t request_completion_record = 0x8;
inline constexpr std::uint32_t cache_control = 0x100;  // write the destination into the cache
inline constexpr std::uint32_t read_source2_aecs = 0x1'0000;
}  // namespace flag

namespace compress_flag {
inline constexpr std::uint16_t statistics = 0x1;
inline constexpr std::uint16_t flush_output = 0x2;
inline constexpr std::uint16_t append_end_of_block = 0x4;
inline constexpr std::uint16_t whole_page = flush_output | append_end_of_block;
}  // namespace compress_flag

namespace decompress_flag {
inline constexpr std::uint16_t enable = 0x1;
inline constexpr std::uint16_t flush_output = 0x2;
// Stop at the end-of-block and check for it: sources disagree which bit is which, so both.
inline constexpr std::uint16_t end_of_block = 0xc;
inline constexpr std::uint16_t suppress_output = 0x200;
inline constexpr std::uint16_t whole_page = enable | flush_output | end_of_block;
}  // namespace decompress_flag

struct alignas(64) Descriptor {
    std::uint32_t pasid;         // 0 from user space
    std::uint32_t flags_opcode;  // flags in bits 0 to 23, the opcode above
    std::uint64_t completion_addr;
    std::uint64_t source1_addr;
    std::uint64_t destination_addr;
    std::uint32_t source1_bytes;
    std::uint16_t interrupt_handle;
    std::uint16_t operation_flags;  // compress_flag or decompress_flag
    std::uint64_t source2_addr;     // AECS, 32-byte aligned, or 0
    std::uint32_t destination_bytes_max;
    std::uint32_t source2_bytes;
    std::uint32_t filter_flags;
    std::uint32_t input_count;

    Opcode opcode() const noexcept { return static_cast<Opcode>(flags_opcode >> 24); }
    std::uint32_t flags() const noexcept { return flags_opcode & 0xff'ffff; }
    void set(Opcode opcode, std::uint32_t flags) noexcept {
        flags_opcode = flags | static_cast<std::uint32_t>(opcode) << 24;
    }
};
static_assert(sizeof(Descriptor) == 64);
static_assert(offsetof(Descriptor, completion_addr) == 8 && offsetof(Descriptor, source1_addr) == 16);
static_assert(offsetof(Descriptor, destination_addr) == 24 && offsetof(Descriptor, source1_bytes) == 32);
static_assert(offsetof(Descriptor, operation_flags) == 38 && offsetof(Descriptor, source2_addr) == 40);
static_assert(offsetof(Descriptor, destination_bytes_max) == 48 && offsetof(Descriptor, source2_bytes) == 52);

struct alignas(64) Completion {
    std::uint8_t status;  // 0: in progress
    std::uint8_t error_code;
    std::uint16_t reserved1;
    std::uint32_t bytes_completed;
    std::uint64_t fault_addr;
    std::uint32_t invalid_flags;
    std::uint32_t reserved2;
    std::uint32_t output_bytes;
    std::uint8_t output_bits;
    std::uint8_t reserved3;
    std::uint16_t xor_checksum;
    std::uint32_t crc;  // of the plain bytes, in both directions; gzip's polynomial
    std::uint32_t minimum, maximum, sum;
    std::uint64_t reserved4[2];

    // Before a submission. The status by itself, because whoever looks for a slot may be looking at it.
    void clear() noexcept {
        std::atomic_ref<std::uint8_t>(status).store(0, std::memory_order_relaxed);
        std::fill_n(reinterpret_cast<std::byte*>(this) + 1, sizeof *this - 1, std::byte{0});
    }
    // Acquire: pairs with the device writing the status last; what it wrote before is then visible.
    std::uint8_t load_status() noexcept {
        return std::atomic_ref<std::uint8_t>(status).load(std::memory_order_acquire);
    }
};
static_assert(sizeof(Completion) == 64 && offsetof(Completion, fault_addr) == 8);
static_assert(offsetof(Completion, output_bytes) == 24 && offsetof(Completion, crc) == 32);

struct alignas(32) CompressAecs {
    std::uint32_t crc_seed, xor_seed;
    std::uint32_t reserved1[5];
    std::uint32_t accumulated_bits;  // of what precedes the first symbol
    std::uint8_t accumulated[256];
    std::uint32_t literal_codes[286];  // length << 15 | code, the code's first bit highest
    std::uint32_t reserved2[2];
    std::uint32_t distance_codes[30];
    std::uint32_t reserved3[2];
};
static_assert(sizeof(CompressAecs) == 1568 && offsetof(CompressAecs, accumulated) == 32);
static_assert(offsetof(CompressAecs, literal_codes) == 288 && offsetof(CompressAecs, distance_codes) == 1440);

inline constexpr std::uint32_t code_of(std::uint32_t bits, std::uint32_t code) {
    return bits << 15 | code;
}

// One final block with DEFLATE's fixed codes (RFC 1951, 3.2.6). Never written by the device.
inline constexpr CompressAecs fixed_codes() {
    CompressAecs aecs{};
    aecs.accumulated_bits = 3;
    aecs.accumulated[0] = 0b011;  // final, type 01
    for (std::uint32_t i = 0; i < 286; ++i) {
        aecs.literal_codes[i] = i < 144   ? code_of(8, 0x30 + i)
                                : i < 256 ? code_of(9, 0x190 + i - 144)
                                : i < 280 ? code_of(7, i - 256)
                                          : code_of(8, 0xc0 + i - 280);
    }
    for (std::uint32_t i = 0; i < 30; ++i) aecs.distance_codes[i] = code_of(5, i);
    return aecs;
}

}  // namespace pnode::compress::iaa
