#include "runtime/options/options.h"

#include <unistd.h>

#include <array>
#include <cctype>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <vector>

#include "compress/codec.h"
#include "cxl/region_spec.h"
#include "cxl/sizes.h"

namespace pnode {
namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;
constexpr std::uint64_t tib = std::uint64_t{1} << 40;
constexpr std::uint64_t hour_ms = 3'600'000;
constexpr const char* no_choices = "";

static_assert(PN_ENGINE_AUTO == 0 && PN_ENGINE_THREAD == 1 && PN_ENGINE_INLINE == 2,
              "the order of --engine's choices");
static_assert(Options::hide_move == 1 << 0 && Options::hide_userfaultfd == 1 << 1,
              "the order of --hide's choices");
static_assert(Options::capture_malloc == 1 << 0 && Options::capture_mmap == 1 << 1 &&
                  Options::capture_hints == 1 << 2,
              "the order of --capture's choices");

constexpr OptionSpec table[] = {
    {"near", "PNODE_NEAR", "SIZE", OptionType::size, "50%", "", mib, physical_memory, no_choices,
     &Options::near_bytes_max, "Near limit: DRAM for the program's heap; what is colder goes far."},
    {"far", "PNODE_FAR", "SIZE", OptionType::size, "", "the node's size", mib, 64 * tib, no_choices,
     &Options::far_bytes_max, "Far limit: physical bytes in the node. When it is full, the rest stays near."},
    {"total", "PNODE_TOTAL", "SIZE", OptionType::size, "", "none", mib, physical_memory, no_choices,
     &Options::total_bytes_max,
     "Limit of near and far together: near is what the compressed bytes leave of it, at most --near."},
    {"node", "PNODE_NODE", "SPEC", OptionType::node, "", "memory: of the far limit", 0, 0, no_choices,
     &Options::node, "Where far pages live. memory: is compressed bytes in DRAM (docs/private-node.md)."},
    {"codec", "PNODE_CODEC", "NAME", OptionType::codec, "lz4", "", 0, 0, no_choices, &Options::codec,
     "How pages are compressed: lz4 is fast, zstd smaller, auto lz4 at first and zstd for what stays cold "
     "(docs/design.md), deflate what accelerators read; iaa uses one (docs/hardware.md)."},
    {"engine", "PNODE_ENGINE", "NAME", OptionType::choice, "auto", "", 0, 0, "auto|thread|inline",
     &Options::engine,
     "Who serves a fault: the thread that faults (inline), or handler threads; auto is inline where that is "
     "complete (docs/behaviour.md)."},
    {"stats", "PNODE_STATS", "FILE", OptionType::file, "", "none", 0, 0, no_choices, &Options::stats,
     "Write statistics there as JSON when the program ends; - is standard error. Where the name has %p, the "
     "process's number, each forked child writes its own."},
    {"stats-every", "PNODE_STATS_EVERY", "MS", OptionType::milliseconds, "0", "", 0, hour_ms, no_choices,
     &Options::stats_every_ms, "Also rewrite the statistics file that often; 0: only at the end."},
    {"activation", "PNODE_ACTIVATION", "SIZE", OptionType::size, "16M", "", 0, tib, no_choices,
     &Options::activation_bytes, "A heap below this is left alone: no thread, no userfaultfd, no node."},
    {"capture", "PNODE_CAPTURE", "LIST", OptionType::list, "malloc,mmap", "", 0, 0, "malloc|mmap|hints",
     &Options::capture,
     "What the heap takes: allocations, private anonymous mappings, those with a hint too "
     "(docs/behaviour.md)."},
    {"capture-min", "PNODE_CAPTURE_MIN", "SIZE", OptionType::size, "1M", "", 4096, tib, no_choices,
     &Options::capture_bytes_min, "Mappings below this are left to the kernel."},
    {"verbose", "PNODE_VERBOSE", "", OptionType::flag, "0", "", 0, 0, no_choices, &Options::verbose,
     "Say on standard error what was set up and what was not."},
    {"strict", "PNODE_STRICT", "", OptionType::flag, "0", "", 0, 0, no_choices, &Options::strict,
     "Fail allocations (ENOMEM) that cannot be kept within the near limit."},
    {"stress", "PNODE_STRESS", "", OptionType::flag, "0", "", 0, 0, no_choices, &Options::stress,
     "For tests: demote at every chance."},
    {"hide", "PNODE_HIDE", "LIST", OptionType::list, "", "nothing", 0, 0, "move|userfaultfd", &Options::hide,
     "For tests: act as if the kernel did not offer these."},
};

// Ours to read, but not options of the program that is run.
constexpr std::string_view other_variables[] = {"PNODE_LIBRARY", "PNODE_SEED"};

bool refuse(const OptionSpec& spec, std::string what, std::string* why) {
    *why = std::move(what);
    *why += " (takes ";
    *why += option_range(spec);
    *why += ')';
    return false;
}

bool in_range(const OptionSpec& spec, std::uint64_t value) {
    const std::uint64_t maximum = spec.maximum == physical_memory ? physical_memory_bytes() : spec.maximum;
    return value >= spec.minimum && value <= maximum;
}

bool parse_size_option(const OptionSpec& spec, std::string_view text, std::uint64_t* value,
                       std::string* why) {
    std::uint64_t bytes = 0;
    std::string reason;
    const bool zero_is_meant = spec.minimum == 0 && text == "0";
    if (!zero_is_meant && !parse_size(text, &bytes, &reason)) return refuse(spec, std::move(reason), why);
    if (!in_range(spec, bytes)) return refuse(spec, "out of range", why);
    *value = bytes;
    return true;
}

bool parse_milliseconds(const OptionSpec& spec, std::string_view text, std::uint64_t* value,
                        std::string* why) {
    std::uint64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error == std::errc::invalid_argument || rest != end)
        return refuse(spec, "not a whole number of milliseconds", why);
    if (error != std::errc{} || !in_range(spec, number)) return refuse(spec, "out of range", why);
    *value = number;
    return true;
}

bool parse_flag(const OptionSpec& spec, std::string_view text, bool* value, std::string* why) {
    for (const std::string_view yes : {"1", "true", "yes", "on"}) {
        if (text == yes) return *value = true;
    }
    for (const std::string_view no : {"0", "false", "no", "off"}) {
        if (text == no) return !(*value = false);
    }
    return refuse(spec, "neither on nor off", why);
}

// Takes the text up to `separator` off the front of `rest`.
std::string_view next_word(std::string_view* rest, char separator) {
    const std::size_t at = rest->find(separator);
    const std::string_view word = rest->substr(0, at);
    *rest = at == std::string_view::npos ? std::string_view{} : rest->substr(at + 1);
    return word;
}

// The index of `text` among the choices, or -1.
int choice_index(const OptionSpec& spec, std::string_view text) {
    std::string_view rest = spec.choices;
    for (int index = 0; !rest.empty(); ++index) {
        if (next_word(&rest, '|') == text) return index;
    }
    return -1;
}

bool parse_choice(const OptionSpec& spec, std::string_view text, std::uint32_t* value, std::string* why) {
    const int index = choice_index(spec, text);
    if (index < 0) return refuse(spec, "no such choice", why);
    *value = static_cast<std::uint32_t>(index);
    return true;
}

bool parse_list(const OptionSpec& spec, std::string_view text, std::uint32_t* value, std::string* why) {
    std::uint32_t bits = 0;
    for (bool more = true; more;) {
        more = text.find(',') != std::string_view::npos;
        const int index = choice_index(spec, next_word(&text, ','));
        if (index < 0) return refuse(spec, "no such choice", why);
        bits |= 1u << index;
    }
    *value = bits;
    return true;
}

bool check_node(const OptionSpec& spec, std::string_view text, std::string* why) {
    cxl::RegionSpec region;
    std::string reason;
    if (!cxl::parse_region_spec(text, &region, &reason)) return refuse(spec, std::move(reason), why);
    const std::uint64_t bytes_max =
        region.kind == cxl::RegionKind::memory ? physical_memory_bytes() : UINT64_MAX;
    const bool all_there_is = region.size_bytes == 0;
    if (!all_there_is && (region.size_bytes < mib || region.size_bytes > bytes_max))
        return refuse(spec, "out of range", why);
    return true;
}

bool check_text(const OptionSpec& spec, std::string_view text, std::string* why) {
    compress::CodecChoice choice;
    switch (spec.type) {
        case OptionType::codec:
            return compress::parse_codec_choice(text, &choice) || refuse(spec, "no such codec or level", why);
        case OptionType::node:
            return check_node(spec, text, why);
        default:
            return text.size() < PATH_MAX || refuse(spec, "too long for a path", why);
    }
}

const OptionSpec* spec_of_variable(std::string_view name) {
    for (const OptionSpec& spec : table) {
        if (name == spec.environment) return &spec;
    }
    return nullptr;
}

bool is_other_variable(std::string_view name) {
    for (const std::string_view other : other_variables) {
        if (name == other) return true;
    }
    return false;
}

// Reads the environment's entries one after the other and says what is wrong with them.
class EnvironmentReader {
  public:
    EnvironmentReader(Options* options, Options::Warn warn, void* context)
        : options_(options), warn_(warn), context_(context) {}

    void read_all() {
        for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) read(*entry);
    }

    // The names that a warning was about, each as often.
    const std::vector<std::string>& refused() const { return refused_; }

  private:
    void read(std::string_view entry) {
        if (!entry.starts_with("PNODE_")) return;
        std::string_view value = entry;
        const std::string_view name = next_word(&value, '=');
        const OptionSpec* const spec = spec_of_variable(name);
        if (spec == nullptr) {
            if (is_other_variable(name)) return;
            return refuse_variable(name, " is not a variable of pnode: ignored (see pnode run --help)");
        }
        bool& seen = seen_[static_cast<std::size_t>(spec - table)];
        if (seen) return refuse_variable(name, " is set twice: the first one holds");
        seen = true;
        std::string why;
        if (!parse_option(*spec, value, options_, &why)) refuse_value(*spec, printable(value), why);
    }

    // A reason may quote the value: then that of the value as it is shown.
    void refuse_value(const OptionSpec& spec, const std::string& value, std::string why) {
        Options unused;
        std::string of_shown;
        if (!parse_option(spec, value, &unused, &of_shown)) why = std::move(of_shown);
        const bool named = *spec.default_text != '\0';
        refuse_variable(spec.environment, "=" + value + ": " + why + "; keeping the default, " +
                                              (named ? spec.default_text : spec.default_words));
    }

    void refuse_variable(std::string_view name, const std::string& what) {
        refused_.emplace_back(name);
        if (warn_ != nullptr) warn_((printable(name) + what).c_str(), context_);
    }

    // A line stays one line, and short, whatever the variable holds.
    static std::string printable(std::string_view value) {
        constexpr std::size_t shown_max = 64;
        std::string shown(value.substr(0, shown_max));
        for (char& letter : shown) {
            if (std::iscntrl(static_cast<unsigned char>(letter)) != 0) letter = '?';
        }
        return value.size() > shown_max ? shown + "..." : shown;
    }

    Options* options_;
    Options::Warn warn_;
    void* context_;
    std::array<bool, std::size(table)> seen_{};
    std::vector<std::string> refused_;
};

}  // namespace

std::span<const OptionSpec> option_table() noexcept {
    return table;
}

bool parse_option(const OptionSpec& spec, std::string_view text, Options* options, std::string* why) {
    if (text.empty()) return refuse(spec, "empty", why);
    if (const auto* number = std::get_if<std::uint64_t Options::*>(&spec.member)) {
        std::uint64_t* const value = &(options->**number);
        return spec.type == OptionType::size ? parse_size_option(spec, text, value, why)
                                             : parse_milliseconds(spec, text, value, why);
    }
    if (const auto* choice = std::get_if<std::uint32_t Options::*>(&spec.member)) {
        std::uint32_t* const value = &(options->**choice);
        return spec.type == OptionType::choice ? parse_choice(spec, text, value, why)
                                               : parse_list(spec, text, value, why);
    }
    if (const auto* flag = std::get_if<bool Options::*>(&spec.member)) {
        return parse_flag(spec, text, &(options->**flag), why);
    }
    if (!check_text(spec, text, why)) return false;
    options->*std::get<std::string Options::*>(spec.member) = text;
    return true;
}

Options Options::defaults() noexcept {
    Options options;
    try {
        std::string why;
        for (const OptionSpec& spec : table) {
            if (*spec.default_text != '\0') parse_option(spec, spec.default_text, &options, &why);
        }
    } catch (...) {  // std::bad_alloc: every member still has a value the runtime takes
    }
    return options;
}

Options Options::from_environment(Warn warn, void* context) noexcept {
    Options options = defaults();
    try {
        EnvironmentReader(&options, warn, context).read_all();
    } catch (...) {  // std::bad_alloc: what was read holds
    }
    return options;
}

void Options::clean_environment(Warn warn, void* context) noexcept {
    try {
        Options options = defaults();
        EnvironmentReader reader(&options, warn, context);
        reader.read_all();
        for (const std::string& name : reader.refused()) {
            // Of a variable that is set twice the first holds; unsetenv() takes every one of the name.
            const char* const first = std::getenv(name.c_str());
            const OptionSpec* const spec = spec_of_variable(name);
            std::string why;
            const std::string kept = first != nullptr ? first : "";
            ::unsetenv(name.c_str());
            if (spec != nullptr && !kept.empty() && parse_option(*spec, kept, &options, &why))
                ::setenv(name.c_str(), kept.c_str(), 1);
        }
    } catch (...) {  // std::bad_alloc: what was warned of stays, and is told again
    }
}

}  // namespace pnode
