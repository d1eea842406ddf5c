// The table of the options as people read it.
#include <string>

#include "compress/codec.h"
#include "cxl/region_spec.h"
#include "runtime/options/options.h"

namespace pnode {
namespace {

constexpr std::size_t help_column = 24;  // where the sentences of --help begin
constexpr std::size_t help_width = 100;

// As it would be typed: "64T", "1M", "16M".
std::string size_as_typed(std::uint64_t bytes) {
    std::size_t unit = 0;
    while (bytes != 0 && bytes % 1024 == 0 && unit < 4) bytes /= 1024, ++unit;
    std::string text = std::to_string(bytes);
    if (unit > 0) text += "KMGT"[unit - 1];
    return text;
}

std::string choices_as_words(const char* choices) {
    std::string text;
    for (; *choices != '\0'; ++choices) {
        if (*choices == '|')
            text += ", ";
        else
            text += *choices;
    }
    return text;
}

std::string default_as_words(const OptionSpec& spec) {
    if (spec.type == OptionType::flag) return "off";
    return *spec.default_text != '\0' ? spec.default_text : spec.default_words;
}

std::string flag_as_typed(const OptionSpec& spec) {
    std::string text = "--";
    text += spec.name;
    if (*spec.metavar != '\0') text.append(" ").append(spec.metavar);
    return text;
}

// Appends `text` in lines of at most help_width, each beginning in help_column.
void append_wrapped(std::string_view text, std::string* out) {
    constexpr std::size_t room = help_width - help_column;
    while (text.size() > room) {
        const std::size_t space = text.rfind(' ', room);
        const std::size_t length = space == std::string_view::npos ? room : space;
        out->append(text.substr(0, length)).append("\n").append(help_column, ' ');
        text.remove_prefix(space == std::string_view::npos ? length : length + 1);
    }
    out->append(text).append("\n");
}

}  // namespace

std::string option_range(const OptionSpec& spec) {
    switch (spec.type) {
        case OptionType::size: {
            const bool to_memory = spec.maximum == physical_memory;
            return "a size from " + size_as_typed(spec.minimum) + " to " +
                   (to_memory ? "physical memory" : size_as_typed(spec.maximum));
        }
        case OptionType::milliseconds:
            return "milliseconds from " + std::to_string(spec.minimum) + " to " +
                   std::to_string(spec.maximum);
        case OptionType::flag:
            return "1 or 0";
        case OptionType::choice:
            return choices_as_words(spec.choices);
        case OptionType::list:
            return "one or more, by comma, of " + choices_as_words(spec.choices);
        case OptionType::codec:
            return compress::codec_choice_grammar;
        case OptionType::node:
            return std::string(cxl::region_spec_grammar) + ", SIZE from 1M, of memory: to physical memory";
        case OptionType::file:
            return "a path, or -";
    }
    return {};
}

std::string options_help() {
    std::string text;
    for (const OptionSpec& spec : option_table()) {
        std::string head = "  " + flag_as_typed(spec);
        head.resize(help_column, ' ');
        text += head;
        std::string body = spec.sentence;
        if (spec.type != OptionType::flag)
            body += " Takes " + option_range(spec) + "; default " + default_as_words(spec) + ".";
        body.append(" [").append(spec.environment).append("]");
        append_wrapped(body, &text);
    }
    return text;
}

std::string options_markdown() {
    std::string text =
        "| option | environment | takes | default | what it does |\n"
        "| --- | --- | --- | --- | --- |\n";
    for (const OptionSpec& spec : option_table()) {
        text += "| `" + flag_as_typed(spec) + "` | `" + spec.environment + "` | " + option_range(spec) +
                " | " + default_as_words(spec) + " | " + spec.sentence + " |\n";
    }
    return text;
}

}  // namespace pnode
