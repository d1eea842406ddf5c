// One way to store pages: a codec at a level, a block size, with or without a dictionary.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace pnode::bench {

struct Variant {
    std::string codec;  // as a heap takes it: "lz4", "zstd:3", "iaa"
    std::size_t block_bytes = 4096;
    bool has_dictionary = false;
    bool operator==(const Variant&) const = default;

    // A heap stores pages one by one, and a dictionary comes to it in the background.
    bool is_a_heaps_at_once() const { return block_bytes == 4096 && !has_dictionary && codec != "same"; }
    // What to tell a heap that it stores what is cold like this; "" where it cannot.
    std::string heap_codec() const;
    std::string name() const;  // "zstd:3+dict, 16 KiB"
};

// Every codec, level, block size, and with a dictionary what can use one: what suits each other of it.
// `dictionaries` adds those with one. Throws std::invalid_argument for a codec that there is not.
std::vector<Variant> all_variants(const std::vector<std::string>& codecs,
                                  const std::vector<std::size_t>& block_bytes, bool dictionaries);

// What is measured unless something else is asked for; an accelerator only where there is one.
std::vector<std::string> default_codecs();

}  // namespace pnode::bench
