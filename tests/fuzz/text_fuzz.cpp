// Any text as a size, a node, a codec, an option or an environment: taken or refused, and what is refused has
// a reason and changes nothing.
#include <array>

#include "compress/codec.h"
#include "compress/iaa/model/plan.h"
#include "cxl/region_spec.h"
#include "cxl/sizes.h"
#include "runtime/options/options.h"
#include "tests/fuzz/fuzz_input.h"

namespace pnode::fuzz {
namespace {

void parse_as_size(std::string_view text) {
    constexpr std::uint64_t untouched = 0x5aa5;
    std::uint64_t bytes = untouched;
    std::string why;
    if (parse_size(text, &bytes, &why)) {
        require(why.empty(), "a size that is taken has no reason not to be");
        std::uint64_t again = 0;
        require(parse_size(std::to_string(bytes), &again, &why) && again == bytes, "bytes are a size");
        require(!format_size(bytes).empty(), "a size can be shown");
    } else {
        require(!why.empty() && bytes == untouched,
                "a size that is refused has a reason and changes nothing");
    }
}

void parse_as_node(std::string_view text) {
    cxl::RegionSpec spec;
    spec.numa_node = -7;
    std::string why;
    const bool taken = cxl::parse_region_spec(text, &spec, &why);
    require(taken ? spec.numa_node >= -1 : spec.numa_node == -7 && !why.empty(),
            "a node that is refused has a reason and changes nothing");
    require(cxl::parse_region_spec(text, &spec, nullptr) == taken, "no reason need be asked for");
}

void parse_as_codec(std::string_view text) {
    compress::CodecChoice choice;
    if (!compress::parse_codec_choice(text, &choice))
        return require(choice.codec == nullptr, "it changes nothing");
    require(choice.codec != nullptr, "a choice names a codec");
    compress::CodecChoice again;
    require(compress::parse_codec_choice(compress::name_of(choice), &again) && again.codec == choice.codec,
            "a codec's name is a choice of it");
}

void parse_as_option(Input input) {
    const std::span<const OptionSpec> table = option_table();
    const OptionSpec& spec = table[input.below(table.size())];
    Options options = Options::defaults();
    std::string why;
    if (parse_option(spec, input.text(), &options, &why)) return;
    require(why.find("takes") != std::string::npos, "what is refused says what is taken");
    require(!option_range(spec).empty(), "every option has a range");
}

void count_line(const char* line, void* lines) {
    require(line[0] != '\0' && std::strchr(line, '\n') == nullptr, "a warning is one line");
    ++*static_cast<unsigned*>(lines);
}

// PNODE_ variables, known and unknown, each with what the input says.
void read_environment(Input input) {
    std::array<std::string, 4> names;
    for (std::string& name : names) {
        const std::span<const OptionSpec> table = option_table();
        const std::uint64_t which = input.below(table.size() + 2);
        name = which < table.size()    ? table[which].environment
               : which == table.size() ? "PNODE_SEED"
                                       : "PNODE_X";
        std::string value(input.below(24), '\0');
        for (char& c : value) c = static_cast<char>(1 + input.below(255));
        ::setenv(name.c_str(), value.c_str(), 1);
    }
    unsigned warnings = 0;
    unsigned later = 0;
    Options::from_environment(count_line, &warnings);
    Options::clean_environment(count_line, &later);
    require(warnings == later, "what is wrong is told alike");
    later = 0;
    Options::from_environment(count_line, &later);
    require(later == 0, "a clean environment has nothing wrong");
    for (const std::string& name : names) ::unsetenv(name.c_str());
}

}  // namespace
}  // namespace pnode::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace pnode::fuzz;
    Input input(data, size);
    switch (input.below(6)) {
        case 0:
            parse_as_size(input.text());
            break;
        case 1:
            parse_as_node(input.text());
            break;
        case 2:
            parse_as_codec(input.text());
            break;
        case 3:
            parse_as_option(input);
            break;
        case 4:
            read_environment(input);
            break;
        case 5:
            pnode::compress::iaa::model::Plan::parse(std::string(input.text()));
            break;
    }
    return 0;
}
