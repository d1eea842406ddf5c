#include "compress/iaa/model/deflate_model.h"

#include <algorithm>
#include <cstring>

#include "compress/iaa/status.h"

namespace pnode::compress::iaa::model {
namespace {

constexpr unsigned literals = 286, distances = 30, end_of_block_symbol = 256;
constexpr std::uint16_t length_base[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                         31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
constexpr std::uint8_t length_extra[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                         2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
constexpr std::uint16_t distance_base[] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                           33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                           1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
constexpr std::uint8_t distance_extra[] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                           6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
constexpr std::size_t match_bytes_min = 3, match_bytes_max = 258;

// ---- encoding ----

class BitWriter {
  public:
    explicit BitWriter(MutableBytes room) : room_(room) {}
    // The lowest bit first.
    void put(std::uint32_t value, unsigned bits) noexcept {
        for (; bits != 0; --bits, value >>= 1) {
            const std::size_t at = bit_ / 8;
            if (at >= room_.size()) {
                overflow_ = true;
                return;
            }
            if (bit_ % 8 == 0) room_[at] = std::byte{0};
            room_[at] |= static_cast<std::byte>((value & 1) << bit_ % 8);
            ++bit_;
        }
    }
    // A Huffman code: its highest bit first.
    void put_code(std::uint32_t entry) noexcept {
        const unsigned bits = entry >> 15;
        if (bits == 0 || bits > 15) no_such_code_ = true;
        for (unsigned bit = bits; bit-- != 0 && !no_such_code_;) put(entry >> bit & 1, 1);
    }
    Coded coded() const noexcept {
        return {no_such_code_ ? error::bad_aecs : std::uint8_t{0}, overflow_, (bit_ + 7) / 8};
    }

  private:
    MutableBytes room_;
    std::size_t bit_ = 0;
    bool overflow_ = false;
    bool no_such_code_ = false;
};

// The last symbol whose base is not above `value`.
unsigned symbol_of(std::span<const std::uint16_t> base, std::size_t value) noexcept {
    return static_cast<unsigned>(std::ranges::upper_bound(base, value) - base.begin()) - 1;
}

std::size_t match_length(Bytes source, std::size_t from, std::size_t at) noexcept {
    const std::size_t limit = std::min(match_bytes_max, source.size() - at);
    std::size_t length = 0;
    while (length < limit && source[from + length] == source[at + length]) ++length;
    return length;
}

unsigned hash_at(Bytes source, std::size_t at) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned>(source[at + i]); };
    return (byte(0) << 16 | byte(1) << 8 | byte(2)) * 2654435761U >> 20;
}

void put_match(BitWriter& out, const CompressAecs& aecs, std::size_t length, std::size_t distance) noexcept {
    const unsigned l = symbol_of(length_base, length);
    const unsigned d = symbol_of(distance_base, distance);
    out.put_code(aecs.literal_codes[257 + l]);
    out.put(static_cast<std::uint32_t>(length - length_base[l]), length_extra[l]);
    out.put_code(aecs.distance_codes[d]);
    out.put(static_cast<std::uint32_t>(distance - distance_base[d]), distance_extra[d]);
}

// ---- decoding ----

class BitReader {
  public:
    explicit BitReader(Bytes source) : source_(source) {}
    std::uint32_t take(unsigned bits) noexcept {
        std::uint32_t value = 0;
        for (unsigned i = 0; i < bits; ++i, ++bit_) {
            if (bit_ / 8 >= source_.size()) {
                ended_ = true;
                return 0;
            }
            value |= (static_cast<std::uint32_t>(source_[bit_ / 8]) >> bit_ % 8 & 1) << i;
        }
        return value;
    }
    void skip_to_byte() noexcept { bit_ = (bit_ + 7) / 8 * 8; }
    bool ended() const noexcept { return ended_; }

  private:
    Bytes source_;
    std::size_t bit_ = 0;
    bool ended_ = false;
};

// A canonical Huffman code (RFC 1951, 3.2.2).
class Huffman {
  public:
    static constexpr unsigned bits_max = 15;
    static constexpr int no_symbol = -1;
    // False when the lengths are of no complete code; one code alone may be incomplete if it is of one bit.
    bool build(std::span<const std::uint8_t> lengths) noexcept {
        std::ranges::fill(counts_, std::uint16_t{0});
        for (const std::uint8_t length : lengths) ++counts_[length];
        const unsigned used = static_cast<unsigned>(lengths.size()) - counts_[0];
        std::uint16_t offsets[bits_max + 2] = {};
        int left = 1;
        for (unsigned bits = 1; bits <= bits_max; ++bits) {
            left = 2 * left - counts_[bits];
            if (left < 0) return false;
            offsets[bits + 1] = static_cast<std::uint16_t>(offsets[bits] + counts_[bits]);
        }
        for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol)
            if (lengths[symbol] != 0)
                symbols_[offsets[lengths[symbol]]++] = static_cast<std::uint16_t>(symbol);
        return left == 0 || used == 0 || (used == 1 && counts_[1] == 1);
    }
    int take(BitReader& in) const noexcept {
        int code = 0, first = 0, index = 0;
        for (unsigned bits = 1; bits <= bits_max; ++bits) {
            code |= static_cast<int>(in.take(1));
            const int count = counts_[bits];
            if (code - first < count) return symbols_[index + code - first];
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        return no_symbol;
    }

  private:
    std::uint16_t counts_[bits_max + 1] = {};
    std::uint16_t symbols_[288] = {};
};

class Decoder {
  public:
    Decoder(Bytes source, MutableBytes destination) : in_(source), out_(destination) {}

    Coded run() noexcept {
        for (bool final = false; !final && result_.error == 0 && !result_.overflow;) {
            final = in_.take(1) != 0;
            const std::uint32_t type = in_.take(2);
            if (type == 0) stored();
            if (type == 1) coded_block(fixed_tables());
            if (type == 2) coded_block(read_tables());
            if (type == 3) fail(error::block_type);
            if (in_.ended()) result_.error = error::end_of_block;  // whatever came of the missing bits
        }
        return result_;
    }

  private:
    void fail(std::uint8_t code) noexcept {
        if (result_.error == 0) result_.error = code;
    }
    void put(std::byte byte) noexcept {
        if (result_.bytes == out_.size())
            result_.overflow = true;
        else
            out_[result_.bytes++] = byte;
    }

    void stored() noexcept {
        in_.skip_to_byte();
        const std::uint32_t length = in_.take(16);
        if (in_.take(16) != (~length & 0xffff)) return fail(error::stored_length);
        for (std::uint32_t i = 0; i < length && !in_.ended() && !result_.overflow; ++i)
            put(static_cast<std::byte>(in_.take(8)));
    }

    bool fixed_tables() noexcept {
        std::uint8_t lengths[288];
        for (unsigned i = 0; i < std::size(lengths); ++i)
            lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
        constexpr std::uint8_t fives[32] = {5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
                                            5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5};
        return literal_.build(lengths) && distance_.build(fives);
    }

    bool read_tables() noexcept {
        constexpr std::uint8_t order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
        const unsigned literal_count = in_.take(5) + 257;
        const unsigned distance_count = in_.take(5) + 1;
        const unsigned order_count = in_.take(4) + 4;
        std::uint8_t lengths[320] = {};
        for (unsigned i = 0; i < order_count; ++i) lengths[order[i]] = static_cast<std::uint8_t>(in_.take(3));
        if (literal_count > literals || distance_count > distances) return false;
        if (!literal_.build(std::span(lengths, 19))) return false;
        std::ranges::fill(lengths, std::uint8_t{0});
        const unsigned wanted = literal_count + distance_count;
        for (unsigned at = 0; at < wanted;) {
            const int symbol = literal_.take(in_);
            if (symbol == Huffman::no_symbol || in_.ended() || (symbol == 16 && at == 0)) return false;
            if (symbol < 16) {
                lengths[at++] = static_cast<std::uint8_t>(symbol);
                continue;
            }
            const std::uint8_t repeated = symbol == 16 ? lengths[at - 1] : std::uint8_t{0};
            const unsigned times = symbol == 16   ? 3 + in_.take(2)
                                   : symbol == 17 ? 3 + in_.take(3)
                                                  : 11 + in_.take(7);
            if (at + times > wanted) return false;
            std::fill_n(lengths + at, times, repeated);
            at += times;
        }
        return lengths[end_of_block_symbol] != 0 && literal_.build(std::span(lengths, literal_count)) &&
               distance_.build(std::span(lengths + literal_count, distance_count));
    }

    void coded_block(bool tables_are_right) noexcept {
        if (!tables_are_right) return fail(error::code_lengths);
        while (result_.error == 0 && !result_.overflow) {
            const int symbol = literal_.take(in_);
            if (in_.ended() || symbol == static_cast<int>(end_of_block_symbol)) return;
            if (symbol == Huffman::no_symbol) return fail(error::invalid_code);
            if (symbol < 256)
                put(static_cast<std::byte>(symbol));
            else
                copy(static_cast<unsigned>(symbol) - 257);
        }
    }

    void copy(unsigned length_symbol) noexcept {
        if (length_symbol >= std::size(length_base)) return fail(error::bad_length);
        const std::size_t length = length_base[length_symbol] + in_.take(length_extra[length_symbol]);
        const int symbol = distance_.take(in_);
        if (in_.ended()) return;
        if (symbol == Huffman::no_symbol || symbol >= static_cast<int>(distances))
            return fail(error::invalid_code);
        const std::size_t distance = distance_base[symbol] + in_.take(distance_extra[symbol]);
        if (distance > window_bytes) return fail(error::bad_distance);
        if (distance > result_.bytes) return fail(error::before_start);
        for (std::size_t i = 0; i < length && !result_.overflow; ++i) put(out_[result_.bytes - distance]);
    }

    BitReader in_;
    MutableBytes out_;
    Coded result_;
    Huffman literal_, distance_;
};

}  // namespace

Coded encode(const CompressAecs& aecs, Bytes source, MutableBytes destination, bool end_of_block) noexcept {
    BitWriter out(destination);
    for (unsigned bit = 0; bit < aecs.accumulated_bits; ++bit)
        out.put(aecs.accumulated[bit / 8] >> bit % 8 & 1U, 1);
    constexpr std::size_t never = SIZE_MAX;
    std::size_t last_seen[4096];
    std::ranges::fill(last_seen, never);
    for (std::size_t at = 0; at < source.size();) {
        std::size_t length = 0, distance = 0;
        if (at + match_bytes_min <= source.size()) {
            std::size_t& seen = last_seen[hash_at(source, at)];
            if (seen != never && at - seen <= window_bytes) {
                length = match_length(source, seen, at);
                distance = at - seen;
            }
            seen = at;
        }
        if (length >= match_bytes_min) {
            put_match(out, aecs, length, distance);
            at += length;
        } else {
            out.put_code(aecs.literal_codes[static_cast<unsigned>(source[at++])]);
        }
    }
    if (end_of_block) out.put_code(aecs.literal_codes[end_of_block_symbol]);
    return out.coded();
}

Coded decode(Bytes source, MutableBytes destination) noexcept {
    return Decoder(source, destination).run();
}

}  // namespace pnode::compress::iaa::model
