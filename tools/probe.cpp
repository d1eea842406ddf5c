#include "tools/probe.h"

#include <cstdio>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "pnode/pnode.h"
#include "tools/say.h"

namespace pnode::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t json_bytes_max = 64 * 1024;
constexpr const char* cure_key = "cure";

std::string scalar_text(const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
    if (value.is_null()) return "unknown";
    return value.dump();
}

bool all_scalar(const Json& list) {
    for (const Json& item : list) {
        if (item.is_structured()) return false;
    }
    return true;
}

std::string joined(const Json& list) {
    std::string text;
    for (const Json& item : list) text += (text.empty() ? "" : ", ") + scalar_text(item);
    return text.empty() ? "none" : text;
}

std::string label(std::string key) {
    for (char& letter : key) {
        if (letter == '_') letter = ' ';
    }
    return key;
}

// The report is printed as it is told, whatever the runtime comes to tell: a line a fact, cures marked.
void print_members(const Json& object, int depth);

void print_fact(const std::string& key, const Json& value, int depth) {
    const int indent = 2 * depth;
    const std::string name = label(key);
    if (key == cure_key) {
        if (value.is_string() && !value.get<std::string>().empty()) {
            std::printf("%*s-> to cure: %s\n", indent, "", value.get<std::string>().c_str());
        }
    } else if (value.is_object()) {
        std::printf("%*s%s\n", indent, "", name.c_str());
        print_members(value, depth + 1);
    } else if (value.is_array() && !all_scalar(value)) {
        std::printf("%*s%s\n", indent, "", name.c_str());
        for (const Json& item : value) print_members(item, depth + 1);
    } else {
        const std::string text = value.is_array() ? joined(value) : scalar_text(value);
        std::printf("%*s%-*s %s\n", indent, "", 28 - indent, name.c_str(), text.c_str());
    }
}

void print_members(const Json& object, int depth) {
    if (!object.is_object()) return print_fact("", object, depth);
    for (const auto& [key, value] : object.items()) print_fact(key, value, depth);
}

}  // namespace

int probe(bool as_json) {
    std::vector<char> text(json_bytes_max);
    if (const int error = pn_probe_json(text.data(), text.size())) {
        say(std::string("the machine cannot be probed: ") + pn_strerror(error));
        return 1;
    }
    const Json report = Json::parse(text.data());
    if (as_json) {
        std::printf("%s\n", report.dump(2).c_str());
    } else {
        print_members(report, 0);
    }
    return 0;
}

}  // namespace pnode::tools
