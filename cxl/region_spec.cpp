#include "cxl/region_spec.h"

#include <cerrno>
#include <charconv>

#include "cxl/sizes.h"

namespace pnode::cxl {

namespace {

constexpr unsigned ratio_max = 64;

bool refuse(std::string* why, const std::string& text) {
    if (why != nullptr) *why = text;
    return false;
}

// Takes the text up to `separator` off the front of `rest`.
std::string_view take_until(std::string_view* rest, char separator) {
    const std::size_t at = rest->find(separator);
    const std::string_view word = rest->substr(0, at);
    *rest = at == std::string_view::npos ? std::string_view{} : rest->substr(at + 1);
    return word;
}

bool take_size(std::string_view text, const char* form, std::uint64_t* bytes, std::string* why) {
    std::string reason;
    return parse_size(text, bytes, &reason) || refuse(why, std::string(form) + ": " + reason);
}

bool parse_memory(std::string_view rest, RegionSpec* spec, std::string* why) {
    return take_size(rest, "memory:SIZE", &spec->size_bytes, why);
}

bool parse_auto(std::string_view rest, RegionSpec* spec, std::string* why) {
    return rest.empty() || take_size(rest, "auto:SIZE", &spec->size_bytes, why);
}

bool parse_dax(std::string_view rest, RegionSpec* spec, std::string* why) {
    constexpr const char* form = "dax:/dev/daxX.Y:OFFSET+SIZE";
    const bool has_range = rest.find(':') != std::string_view::npos;
    spec->device = take_until(&rest, ':');
    if (spec->device.empty() || spec->device.front() != '/') {
        return refuse(why, "dax: needs the path of a device: write dax:/dev/dax0.0 (pnode probe lists them)");
    }
    if (!has_range) return true;
    const bool has_size = rest.find('+') != std::string_view::npos;
    const std::string_view offset = take_until(&rest, '+');
    if (!has_size) return refuse(why, std::string(form) + ": no + in the range: write 0+1G, say");
    if (offset != "0" && !take_size(offset, form, &spec->offset_bytes, why)) return false;
    return take_size(rest, form, &spec->size_bytes, why);
}

bool parse_numa(std::string_view rest, RegionSpec* spec, std::string* why) {
    constexpr int node_max = 1023;
    const bool has_size = rest.find(':') != std::string_view::npos;
    const std::string_view number = take_until(&rest, ':');
    const char* const end = number.data() + number.size();
    const auto [stopped, error] = std::from_chars(number.data(), end, spec->numa_node);
    if (error != std::errc{} || stopped != end || spec->numa_node < 0 || spec->numa_node > node_max) {
        return refuse(why, "numa: \"" + std::string(number) +
                               "\" is not a node's number: write numa:1, say (pnode probe lists them)");
    }
    return !has_size || take_size(rest, "numa:N:SIZE", &spec->size_bytes, why);
}

// A decimal fraction from 1 to 64, in thousandths.
bool parse_ratio(std::string_view text, std::uint64_t* permille) {
    double ratio = 0;
    const char* const end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, ratio);
    if (error != std::errc{} || stopped != end || !(ratio >= 1) || ratio > ratio_max) return false;
    *permille = static_cast<std::uint64_t>(ratio * 1000);
    return true;
}

bool parse_simulated(std::string_view rest, RegionSpec* spec, std::string* why) {
    const bool has_more = rest.find(',') != std::string_view::npos;
    if (!take_size(take_until(&rest, ','), "sim:SIZE", &spec->size_bytes, why)) return false;
    if (has_more && (rest.empty() || rest.ends_with(',')))
        return refuse(why, "sim: nothing follows the last comma: write ratio=2, say");
    std::uint64_t ratio_permille = 2000;
    while (!rest.empty()) {
        std::string_view value = take_until(&rest, ',');
        const std::string_view name = take_until(&value, '=');
        if (name == "physical") {
            if (!take_size(value, "sim: physical=SIZE", &spec->physical_bytes, why)) return false;
        } else if (name != "ratio" || !parse_ratio(value, &ratio_permille)) {
            return refuse(why, "sim: \"" + std::string(name) +
                                   "\": write ratio=R with R from 1 to 64, or physical=SIZE");
        }
    }
    if (spec->physical_bytes == 0) spec->physical_bytes = spec->size_bytes / ratio_permille * 1000;
    return spec->physical_bytes <= spec->size_bytes ||
           refuse(why, "sim: physical= is more than the window: write less, or a larger window");
}

bool parse_kind(std::string_view kind, std::string_view rest, bool has_rest, RegionSpec* spec,
                std::string* why) {
    if (kind == "auto" && (!has_rest || !rest.empty())) {
        spec->kind = RegionKind::automatic;
        return parse_auto(rest, spec, why);
    }
    if (has_rest && kind == "memory") return parse_memory(rest, spec, why);
    if (has_rest && kind == "dax") {
        spec->kind = RegionKind::dax;
        return parse_dax(rest, spec, why);
    }
    if (has_rest && kind == "numa") {
        spec->kind = RegionKind::numa;
        return parse_numa(rest, spec, why);
    }
    if (has_rest && kind == "sim") {
        spec->kind = RegionKind::simulated;
        return parse_simulated(rest, spec, why);
    }
    return refuse(why, "names no region");
}

}  // namespace

bool parse_region_spec(std::string_view text, RegionSpec* spec, std::string* why) {
    std::string_view rest = text;
    const bool has_rest = text.find(':') != std::string_view::npos;
    const std::string_view kind = take_until(&rest, ':');
    RegionSpec parsed;
    if (!parse_kind(kind, rest, has_rest, &parsed, why)) return false;
    *spec = std::move(parsed);
    return true;
}

int read_region_spec(std::string_view text, RegionSpec* spec, std::string* message) {
    std::string why;
    if (parse_region_spec(text, spec, &why)) return 0;
    refuse(message, "\"" + std::string(text) + "\": " + why + " (write " + region_spec_grammar + ")");
    return EINVAL;
}

}  // namespace pnode::cxl
