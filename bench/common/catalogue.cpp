#include "bench/common/catalogue.h"

#include <cstdio>
#include <memory>
#include <random>

namespace pnode::bench {
namespace {

std::string output_of(const char* command) {
    std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command, "re"), pclose);
    std::string text;
    if (!pipe) return text;
    std::string chunk(1 << 20, '\0');
    while (std::size_t got = fread(chunk.data(), 1, chunk.size(), pipe.get())) text.append(chunk, 0, got);
    return text;
}

// A record is "Package: NAME\n..." up to an empty line.
std::vector<Record> split_records(const std::string& text) {
    static const std::string key = "Package: ";
    std::vector<Record> records;
    for (std::size_t begin = 0; begin < text.size();) {
        std::size_t end = text.find("\n\n", begin);
        if (end == std::string::npos) end = text.size();
        if (text.compare(begin, key.size(), key) == 0) {
            std::size_t name = begin + key.size();
            records.push_back(
                {text.substr(name, text.find('\n', name) - name), text.substr(begin, end - begin)});
        }
        begin = end + 2;
    }
    return records;
}

std::string synthetic_record(std::mt19937_64& random, int number) {
    static const char* const words[] = {"library", "development", "files",   "daemon",   "tools", "for",
                                        "with",    "network",     "python",  "bindings", "data",  "common",
                                        "system",  "and",         "support", "server"};
    std::string text = "{\"id\": " + std::to_string(number) + ", \"token\": \"";
    for (int i = 0; i < 12; ++i) {
        char part[20];
        snprintf(part, sizeof part, "%016llx", static_cast<unsigned long long>(random()));
        text += part;
    }
    text += "\", \"description\": \"";
    for (std::uint64_t left = 40 + random() % 60; left > 0; --left) {
        text += words[random() % std::size(words)];
        text += random() % 8 ? " " : ". ";
    }
    return text + "\", \"priority\": \"optional\"}";
}

}  // namespace

Catalogue load_catalogue() {
    Catalogue catalogue{"the Debian package catalogue (apt-cache dumpavail)",
                        split_records(output_of("apt-cache dumpavail 2>/dev/null"))};
    if (!catalogue.records.empty()) return catalogue;
    catalogue.source = "made-up JSON records (no apt-cache here)";
    constexpr int records = 50'000;
    std::mt19937_64 random(1);
    for (int i = 0; i < records; ++i)
        catalogue.records.push_back({"record-" + std::to_string(i), synthetic_record(random, i)});
    return catalogue;
}

}  // namespace pnode::bench
