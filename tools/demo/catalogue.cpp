#include "tools/demo/catalogue.h"

#include <stdio.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <unordered_set>

namespace pnode::demo {
namespace {

// What the catalogue of Debian 12 (main, amd64) holds.
constexpr std::size_t kDebianRecords = 63666;

// The value of the line "FIELD: value" of a stanza, or nothing.
std::string_view field(std::string_view stanza, std::string_view name) {
    for (std::size_t at = 0; at < stanza.size();) {
        const std::size_t end = std::min(stanza.find('\n', at), stanza.size());
        const std::string_view line = stanza.substr(at, end - at);
        if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ':') {
            const std::size_t value = line.find_first_not_of(' ', name.size() + 1);
            return value == std::string_view::npos ? std::string_view{} : line.substr(value);
        }
        at = end + 1;
    }
    return {};
}

std::string unique_key(std::string_view stanza, std::unordered_set<std::string>& taken) {
    std::string key(field(stanza, "Package"));
    if (taken.insert(key).second) return key;
    key.append("=").append(field(stanza, "Version"));
    if (taken.insert(key).second) return key;
    for (std::size_t number = 2;; ++number) {
        std::string numbered = key + "#" + std::to_string(number);
        if (taken.insert(numbered).second) return numbered;
    }
}

struct Output {
    std::string text;
    bool succeeded = false;
};

Output output_of(const std::string& command) {
    const auto close = [](FILE* pipe) { ::pclose(pipe); };
    std::unique_ptr<FILE, decltype(close)> pipe(::popen(command.c_str(), "re"), close);
    Output output;
    if (!pipe) return output;
    std::array<char, 65536> buffer;
    while (const std::size_t got = ::fread(buffer.data(), 1, buffer.size(), pipe.get())) {
        output.text.append(buffer.data(), got);
    }
    const int status = ::pclose(pipe.release());
    output.succeeded = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return output;
}

// Writes stanzas whose fields, lengths and repetitions resemble Debian's.
class StanzaWriter {
  public:
    explicit StanzaWriter(std::uint64_t seed) : random_(seed) {}

    std::string stanza(const std::string& name) {
        std::string out = "Package: " + name + "\nVersion: " + version() +
                          "\nInstalled-Size: " + number(50000) + "\nMaintainer: Debian " + word() +
                          " Maintainers <" + word() +
                          "@lists.alioth.debian.org>\nArchitecture: amd64\nDepends: ";
        out += "libc6 (>= 2.34)";
        for (std::uint64_t left = below(12); left > 0; --left)
            out += ", lib" + word() + " (>= " + version() + ")";
        out += "\nDescription: " + words(4 + below(6)) + "\nHomepage: https://" + word() + ".org/" + word() +
               "\nDescription-md5: " + hexadecimal(32) + "\nTag: role::program, works-with::" + word() +
               "\nSection: " + word() + "\nPriority: optional\nFilename: pool/main/" + name.substr(0, 1) +
               "/" + name + "/" + name + "_" + version() + "_amd64.deb\nSize: " + number(9000000) +
               "\nMD5sum: " + hexadecimal(32) + "\nSHA256: " + hexadecimal(64) + "\n";
        return out;
    }

    std::string word() {
        static constexpr std::array kWords = {
            "library", "files",   "development", "perl",    "python3", "ruby",    "haskell", "font",
            "data",    "common",  "documents",   "network", "kernel",  "module",  "plugin",  "game",
            "server",  "client",  "runtime",     "shared",  "utility", "desktop", "gnome",   "graph",
            "parser",  "testing", "node",        "science", "sound",   "video",   "editor",  "compiler"};
        return kWords[below(kWords.size())];
    }

  private:
    std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
    std::string number(std::uint64_t bound) { return std::to_string(below(bound)); }
    std::string version() { return number(9) + "." + number(30) + "." + number(20) + "-" + number(5); }

    std::string words(std::uint64_t count) {
        std::string out = word();
        while (--count > 0) out += " " + word();
        return out;
    }

    std::string hexadecimal(std::size_t digits) {
        std::string out;
        while (out.size() < digits) out += "0123456789abcdef"[below(16)];
        return out;
    }

    std::mt19937_64 random_;
};

}  // namespace

std::vector<Record> parse_catalogue(std::string_view text) {
    std::vector<Record> records;
    std::unordered_set<std::string> taken;
    while (!text.empty()) {
        const std::size_t gap = text.find("\n\n");
        const std::string_view stanza = text.substr(0, gap == std::string_view::npos ? text.size() : gap + 1);
        if (!field(stanza, "Package").empty())
            records.push_back({unique_key(stanza, taken), std::string(stanza)});
        text.remove_prefix(stanza.size());
        text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
    }
    return records;
}

std::vector<Record> synthetic_catalogue(std::size_t count, std::uint64_t seed) {
    StanzaWriter writer(seed);
    std::vector<Record> records;
    records.reserve(count);
    for (std::size_t number = 0; number < count; ++number) {
        const std::string name = writer.word() + "-" + writer.word() + std::to_string(number);
        records.push_back({name, writer.stanza(name)});
    }
    return records;
}

Catalogue read_catalogue(const std::string& command, std::size_t records_max, std::uint64_t seed) {
    const Output output = output_of(command);
    Catalogue catalogue;
    if (output.succeeded) catalogue.records = parse_catalogue(output.text);
    if (catalogue.records.empty()) {
        catalogue.remark =
            output.succeeded ? "Debian's package catalogue is empty here" : "`" + command + "` failed";
        catalogue.remark +=
            ": synthetic records of the same shape are used instead; `apt-get update` (as root) brings the "
            "real ones";
        catalogue.records = synthetic_catalogue(std::min(kDebianRecords, records_max), seed);
    }
    if (catalogue.records.size() > records_max) catalogue.records.resize(records_max);
    return catalogue;
}

std::uint64_t dataset_bytes(const std::vector<Record>& records) {
    std::uint64_t bytes = 0;
    for (const Record& record : records) bytes += record.key.size() + record.value.size();
    return bytes;
}

}  // namespace pnode::demo
