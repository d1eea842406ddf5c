// What can be told to pnode: one table, from which the command line, the environment, the help and the
// documents come.
//
// Thread rule: the table is constant; the functions use nothing but their arguments and the environment,
// which nobody may be changing meanwhile. None throws. They allocate, so they are not for the fault path or a
// signal handler.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "pnode/pnode.h"

namespace pnode {

struct Options {
    std::uint64_t near_bytes_max = 0;
    std::uint64_t far_bytes_max = 0;    // 0: the node's size
    std::uint64_t total_bytes_max = 0;  // 0: none
    std::string node;  // empty: an embedded node as large as the far limit or physical memory
    std::string codec;
    std::uint32_t engine = PN_ENGINE_AUTO;
    std::string stats;                 // a file, "-" for standard error, empty for none
    std::uint64_t stats_every_ms = 0;  // 0: at exit only
    std::uint64_t activation_bytes = 0;
    std::uint32_t capture = capture_malloc | capture_mmap;  // Capture bits: which memory becomes the heap's
    std::uint64_t capture_bytes_min = std::uint64_t{1} << 20;
    bool verbose = false;
    bool strict = false;
    bool stress = false;
    std::uint32_t hide =
        0;  // Hide bits: what the kernel offers and must not be used, so that tests reach the other path

    enum Capture : std::uint32_t { capture_malloc = 1, capture_mmap = 2, capture_hints = 4 };
    enum Hide : std::uint32_t { hide_move = 1, hide_userfaultfd = 2 };

    // One line without "pnode: " and without a newline.
    using Warn = void (*)(const char* line, void* context);

    static Options defaults() noexcept;

    // Never fails: an unknown PNODE_ variable, one that is set twice and a malformed value are each told to
    // `warn` (may be null) once; the default then holds. Should memory run out half-way, what was not read
    // yet keeps its default.
    static Options from_environment(Warn warn, void* context) noexcept;

    // Warns of the same, and takes what is wrong out of the environment, so that the processes started from
    // here do not all say it again.
    static void clean_environment(Warn warn, void* context) noexcept;
};

enum class OptionType { size, milliseconds, flag, choice, list, codec, node, file };

// Stands for physical memory in `maximum`.
inline constexpr std::uint64_t physical_memory = 0;

struct OptionSpec {
    const char* name;         // of the command line, without the dashes
    const char* environment;  // the variable
    const char* metavar;      // "" for a flag
    OptionType type;
    const char* default_text;   // parsed like any other value; "" leaves the member as it is
    const char* default_words;  // how the documents name an empty default
    std::uint64_t minimum;      // of sizes and milliseconds; "0" is a size only where this is 0
    std::uint64_t maximum;
    const char* choices;  // of a choice (the index is stored) and of a list (bit 1 << index is stored),
                          // separated by '|'
    std::variant<std::uint64_t Options::*, std::uint32_t Options::*, bool Options::*, std::string Options::*>
        member;
    const char* sentence;
};

std::span<const OptionSpec> option_table() noexcept;

// Stores `text` in `options`; false leaves them untouched and puts what is wrong with it into `why`, range
// included. An empty text is malformed. A flag takes 1, 0, true, false, yes, no, on, off. May throw
// std::bad_alloc.
bool parse_option(const OptionSpec& spec, std::string_view text, Options* options, std::string* why);

// "1M to physical memory", "lz4, zstd, zstd:LEVEL, deflate, iaa". May throw std::bad_alloc, as the next two.
std::string option_range(const OptionSpec& spec);

// The options part of `pnode run --help`, and the table of docs/options.md and README.md.
std::string options_help();
std::string options_markdown();

}  // namespace pnode
