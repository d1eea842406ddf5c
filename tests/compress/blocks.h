// Blocks to compress, memory with guards around it, and a seed that can be replayed: what the tests of
// compress/ share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "compress/blob.h"

namespace pnode::compress::testing {

using Random = std::mt19937_64;
using Block = std::vector<std::byte>;

// PNODE_SEED=N replays; printed once per program.
inline std::uint64_t test_seed() {
    static const std::uint64_t seed = [] {
        const char* const text = std::getenv("PNODE_SEED");
        const std::uint64_t value =
            text != nullptr ? std::strtoull(text, nullptr, 0) : std::random_device{}();
        std::cout << "PNODE_SEED=" << value << " replays this run" << std::endl;
        return value;
    }();
    return seed;
}

// `bytes` of memory, aligned as scratch is, zero-filled, between guards that tell when something wrote beside
// it.
class GuardedBuffer {
  public:
    explicit GuardedBuffer(std::size_t bytes)
        : bytes_(bytes),
          memory_(static_cast<std::byte*>(::operator new(bytes + 2 * guard_bytes, alignment))) {
        std::memset(memory_.get(), guard, guard_bytes);
        std::memset(memory_.get() + guard_bytes, 0, bytes);
        std::memset(memory_.get() + guard_bytes + bytes, guard, guard_bytes);
    }
    MutableBytes span() const { return {memory_.get() + guard_bytes, bytes_}; }
    bool intact() const {
        const auto is_guard = [](std::byte b) { return b == std::byte{guard}; };
        const std::byte* const after = memory_.get() + guard_bytes + bytes_;
        return std::all_of(memory_.get(), memory_.get() + guard_bytes, is_guard) &&
               std::all_of(after, after + guard_bytes, is_guard);
    }

  private:
    static constexpr std::size_t guard_bytes = 128;
    static constexpr unsigned char guard = 0xA5;
    static constexpr std::align_val_t alignment{scratch_alignment};
    struct Delete {
        void operator()(std::byte* memory) const { ::operator delete(memory, alignment); }
    };
    std::size_t bytes_;
    std::unique_ptr<std::byte, Delete> memory_;
};

enum class Pattern { zeros, word, text, json, random, near_incompressible, counters, pointers, one_odd_byte };
inline constexpr Pattern all_patterns[] = {Pattern::zeros,    Pattern::word,     Pattern::text,
                                           Pattern::json,     Pattern::random,   Pattern::near_incompressible,
                                           Pattern::counters, Pattern::pointers, Pattern::one_odd_byte};

inline const char* name_of(Pattern pattern) {
    constexpr const char* names[] = {"zeros",    "word",     "text",
                                     "json",     "random",   "near_incompressible",
                                     "counters", "pointers", "one_odd_byte"};
    return names[static_cast<int>(pattern)];
}

inline void fill_with_words(Block& block, std::uint64_t (*next)(std::size_t index, Random& random),
                            Random& random) {
    for (std::size_t at = 0; at < block.size(); at += sizeof(std::uint64_t)) {
        const std::uint64_t word = next(at / sizeof(std::uint64_t), random);
        std::memcpy(block.data() + at, &word, sizeof word);
    }
}

inline void fill_with_text(Block& block, bool json, Random& random) {
    static constexpr std::string_view words[] = {"library", "depends", "package", "version", "maintainer",
                                                 "of",      "the",     "shared",  "runtime", "section"};
    std::string text;
    while (text.size() < block.size()) {
        const std::string_view word = words[random() % std::size(words)];
        if (json)
            text.append("{\"")
                .append(word)
                .append("\":")
                .append(std::to_string(random() % 100000))
                .append("},");
        else
            text.append(word).append(random() % 8 == 0 ? "\n" : " ");
    }
    std::memcpy(block.data(), text.data(), block.size());
}

// `bytes` is a multiple of 8.
inline Block make_block(Pattern pattern, std::size_t bytes, Random& random) {
    Block block(bytes);
    const auto anything = [](std::size_t, Random& r) -> std::uint64_t { return r(); };
    switch (pattern) {
        case Pattern::zeros:
            break;
        case Pattern::word: {
            const std::uint64_t word = random();
            for (std::size_t at = 0; at < bytes; at += sizeof word)
                std::memcpy(block.data() + at, &word, sizeof word);
            break;
        }
        case Pattern::text:
            fill_with_text(block, false, random);
            break;
        case Pattern::json:
            fill_with_text(block, true, random);
            break;
        case Pattern::random:
            fill_with_words(block, anything, random);
            break;
        case Pattern::near_incompressible:
            fill_with_words(block, anything, random);
            std::memcpy(block.data() + bytes / 2, block.data(), bytes / 8);
            break;
        case Pattern::counters:
            fill_with_words(
                block, [](std::size_t index, Random&) -> std::uint64_t { return index; }, random);
            break;
        case Pattern::pointers:
            fill_with_words(
                block,
                [](std::size_t, Random& r) -> std::uint64_t { return 0x7f3a'0000'0000 + r() % 65536 * 16; },
                random);
            break;
        case Pattern::one_odd_byte:
            block[random() % bytes] = std::byte{1};
            break;
    }
    return block;
}

inline constexpr std::size_t block_sizes[] = {64,   128,  192,   256,   1024,  4032,
                                              4096, 8192, 16384, 16448, 65472, 65536};

inline CodecChoice choice_of(std::string_view text) {
    CodecChoice choice;
    EXPECT_TRUE(parse_codec_choice(text, &choice)) << text;
    return choice;
}

}  // namespace pnode::compress::testing
