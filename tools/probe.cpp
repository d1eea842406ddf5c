#include "tools/probe.h"

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "cxl/sizes.h"
#include "nlohmann/json.hpp"
#include "pnode/pnode.h"
#include "tools/say.h"

namespace pnode::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t json_bytes_max = 64 * 1024;
constexpr const char* cure_key = "cure";
constexpr int label_width = 28;

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

// Whole sizes are also told as people say them.
std::string fact_text(const std::string& key, const Json& value) {
    if (value.is_array()) return joined(value);
    const bool is_size = key.find("bytes") != std::string::npos && value.is_number_unsigned();
    return is_size ? format_size(value.get<std::uint64_t>()) : scalar_text(value);
}

// The report is printed as it is told, whatever the runtime comes to tell: a line a fact, what is missing
// with its cure.
void print_members(const Json& object, int depth);

void print_fact(const std::string& key, const Json& value, int depth) {
    const int indent = 2 * depth;
    const std::string name = label(key);
    const bool nested = value.is_object() || (value.is_array() && !all_scalar(value));
    if (!nested) {
        std::printf("%*s%-*s %s\n", indent, "", label_width - indent, name.c_str(),
                    fact_text(key, value).c_str());
        return;
    }
    std::printf("%*s%s\n", indent, "", name.c_str());
    if (value.is_object()) return print_members(value, depth + 1);
    for (const Json& item : value) print_members(item, depth + 1);
}

// The last of its members, as a command to copy.
void print_cure(const Json& object, int depth) {
    const auto cure = object.find(cure_key);
    if (cure != object.end()) std::printf("%*s-> to cure: %s\n", 2 * depth, "", scalar_text(*cure).c_str());
}

void print_members(const Json& object, int depth) {
    if (!object.is_object()) return print_fact("", object, depth);
    for (const auto& [key, value] : object.items()) {
        if (key != cure_key) print_fact(key, value, depth);
    }
    print_cure(object, depth);
}

// What calls for something to be done is read last.
Json missing_last(Json report) {
    if (!report.contains("missing")) return report;
    Json missing = report["missing"];
    report.erase("missing");
    report["missing"] = std::move(missing);
    return report;
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
        print_members(missing_last(report), 0);
    }
    return 0;
}

}  // namespace pnode::tools
