#include "bench/codec/corpus.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <span>
#include <stdexcept>

#include "bench/codec/live_program.h"
#include "bench/codec/process_memory.h"
#include "bench/common/catalogue.h"
#include "bench/common/interrupt.h"

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t stretch_bytes = 65536;  // the largest block

// Whole pages, `pages` at most: where there are more, stretches evenly chosen.
std::vector<std::byte> choose(std::span<const std::byte> all, std::size_t pages) {
    const std::size_t wanted = pages * page_bytes;
    all = all.first(all.size() / page_bytes * page_bytes);
    if (all.size() <= wanted) return {all.begin(), all.end()};
    std::vector<std::byte> chosen;
    const std::size_t stretches = all.size() / stretch_bytes,
                      take = std::min(stretches, (wanted + stretch_bytes - 1) / stretch_bytes);
    for (std::size_t i = 0; i < take; ++i) {
        const auto stretch = all.subspan(i * stretches / take * stretch_bytes, stretch_bytes);
        chosen.insert(chosen.end(), stretch.begin(), stretch.end());
    }
    chosen.resize(std::min(chosen.size(), wanted));
    return chosen;
}

std::vector<std::byte> choose(const std::string& text, std::size_t pages) {
    return choose(std::as_bytes(std::span(text)), pages);
}

std::string text_of(const std::vector<Record>& records) {
    std::string text;
    for (const Record& record : records) text += record.text + "\n\n";
    return text;
}

Corpus catalogue(std::size_t pages) {
    const Catalogue found = load_catalogue();
    return {"", found.source, choose(text_of(found.records), pages), ""};
}

// Files of a folder tree in the order of their names, as far as there is room for all together.
std::string files_below(const std::string& folder, std::size_t bytes_max) {
    std::vector<std::filesystem::path> paths;
    std::error_code unreadable;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(
             folder, std::filesystem::directory_options::skip_permission_denied, unreadable))
        if (entry.is_regular_file(unreadable) && !entry.is_symlink(unreadable)) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    std::string all;
    for (const std::filesystem::path& path : paths) {
        throw_if_interrupted();
        std::ifstream file(path, std::ios::binary);
        all.append(std::istreambuf_iterator<char>(file), {});
        if (all.size() >= bytes_max) break;
    }
    return all;
}

Corpus files(const std::string& folder, const std::string& what, std::size_t pages) {
    return {"", what + " in " + folder, choose(files_below(folder, 8 * pages * page_bytes), pages), ""};
}

// Small records of one shape: numbers, names and flags, as services pass around.
Corpus json(std::size_t pages) {
    static constexpr const char* cities[] = {"Oslo",  "Lima",  "Kyoto", "Accra",
                                             "Quito", "Turin", "Perth", "Cork"};
    std::mt19937_64 random(1);
    std::string text;
    for (std::uint64_t id = 1; text.size() < pages * page_bytes; ++id)
        text += "{\"id\":" + std::to_string(id) + ",\"user\":\"user" + std::to_string(random() % 100000) +
                "\",\"city\":\"" + cities[random() % std::size(cities)] +
                "\",\"balance\":" + std::to_string(random() % 1000000) +
                ",\"active\":" + (random() % 4 != 0 ? "true" : "false") + ",\"token\":\"" +
                std::to_string(random()) + "\"}\n";
    return {"", "made-up JSON records", choose(text, pages), ""};
}

Corpus zeros(std::size_t pages) {
    return {"", "pages of zeros", std::vector<std::byte>(pages * page_bytes), ""};
}

Corpus random_bytes(std::size_t pages) {
    std::mt19937_64 random(1);
    std::vector<std::uint64_t> words(pages * page_bytes / 8);
    for (std::uint64_t& word : words) word = random();
    return {"", "random bytes", choose(std::as_bytes(std::span(words)), pages), ""};
}

// Records of the package catalogue, as many as make a heap of `pages` pages and somewhat more.
std::vector<Record> records_for(std::size_t pages) {
    std::vector<Record> records = load_catalogue().records;
    std::size_t bytes = 0, count = 0;
    while (count < records.size() && bytes < pages * page_bytes * 3 / 2)
        bytes += records[count++].text.size();
    records.resize(count);
    return records;
}

Corpus heap_of(LiveProgramPlan plan, std::size_t pages) {
    const std::string source = plan.source;
    const LiveProgram program(std::move(plan));
    return {"", source, private_pages(program.process(), pages), ""};
}

std::string bulk(const std::string& text) {
    return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

Corpus redis(std::size_t pages) {
    const std::vector<Record> records = records_for(pages);
    LiveProgramPlan plan{
        "redis",
        {"redis-server", "--port", "PORT", "--bind", "127.0.0.1", "--save", "", "--dir", "FOLDER"},
        "",
        "+OK\r\n",
        records.size(),
        "heap of redis-server, the package catalogue as strings"};
    for (const Record& record : records)
        plan.input += "*3\r\n" + bulk("SET") + bulk(record.name) + bulk(record.text);
    return heap_of(std::move(plan), pages);
}

Corpus memcached(std::size_t pages) {
    const std::vector<Record> records = records_for(pages);
    LiveProgramPlan plan{
        "memcached",
        {"memcached", "-p", "PORT", "-U", "0", "-l", "127.0.0.1", "-m", "1024", "-u", "root"},
        "",
        "STORED\r\n",
        records.size(),
        "heap of memcached, the package catalogue as items"};
    for (const Record& record : records)
        plan.input += "set " + record.name.substr(0, 200) + " 0 0 " + std::to_string(record.text.size()) +
                      "\r\n" + record.text + "\r\n";
    return heap_of(std::move(plan), pages);
}

std::string quoted(const std::string& text) {
    std::string safe = "'";
    for (const char letter : text) safe += letter == '\'' ? std::string("''") : std::string(1, letter);
    return safe + "'";
}

Corpus sqlite(std::size_t pages) {
    LiveProgramPlan plan{"sqlite", {"sqlite3", ":memory:"},
                         "",       "filled",
                         1,        "heap of sqlite3, the package catalogue as an indexed table"};
    plan.input = "CREATE TABLE packages(name TEXT PRIMARY KEY, description TEXT);\nBEGIN;\n";
    for (const Record& record : records_for(pages))
        plan.input += "INSERT OR REPLACE INTO packages VALUES(" + quoted(record.name) + "," +
                      quoted(record.text) + ");\n";
    plan.input += "COMMIT;\n.shell echo filled\n";
    return heap_of(std::move(plan), pages);
}

std::string on_one_line(const std::string& quoted_text) {
    std::string line = "E";
    for (const char letter : quoted_text)
        line += letter == '\n' ? "\\n" : letter == '\\' ? "\\\\" : std::string(1, letter);
    return line;
}

// One server process by itself, for its buffers are then its own memory: those of a temporary table. It does
// not run as root.
Corpus postgresql(std::size_t pages) {
    static const std::string start =
        "initdb=$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb | tail -n 1) && "
        "as= && if [ \"$(id -u)\" = 0 ]; then chown postgres \"$1\" && "
        "as='setpriv --reuid=postgres --regid=postgres --clear-groups'; fi && cd \"$1\" && "
        "$as \"$initdb\" -D \"$1/data\" -A trust -E SQL_ASCII --locale=C -N >/dev/null && "
        "exec $as \"${initdb%initdb}postgres\" --single -F -D \"$1/data\" -c temp_buffers=\"$2\" postgres";
    LiveProgramPlan plan{"postgresql",
                         {"sh", "-c", start, "sh", "FOLDER", std::to_string(4 * pages + 1024) + "kB"},
                         "",
                         "= \"filled\"",
                         1,
                         "memory of PostgreSQL, the package catalogue as a temporary table"};
    plan.input = "CREATE TEMP TABLE packages(name text PRIMARY KEY, description text);\nBEGIN;\n";
    for (const Record& record : records_for(pages))
        plan.input += "INSERT INTO packages VALUES(" + on_one_line(quoted(record.name)) + "," +
                      on_one_line(quoted(record.text)) + ") ON CONFLICT DO NOTHING;\n";
    plan.input += "COMMIT;\nSELECT 'filled';\n";
    return heap_of(std::move(plan), pages);
}

// Objects, not text: a dictionary of the fields of every record.
Corpus python(std::size_t pages) {
    const std::string text = text_of(records_for(pages));
    static const std::string program =
        "import sys\n"
        "text = sys.stdin.buffer.read(int(sys.argv[1])).decode(errors='replace')\n"
        "records = [dict(line.split(': ', 1) for line in record.split('\\n') if ': ' in line)\n"
        "           for record in text.split('\\n\\n')]\n"
        "del text\n"
        "print('filled', flush=True)\n"
        "sys.stdin.read()\n";
    return heap_of({"python",
                    {"python3", "-c", program, std::to_string(text.size())},
                    text,
                    "filled",
                    1,
                    "heap of python3, the package catalogue as dictionaries"},
                   pages);
}

// The same objects on a collected heap.
Corpus java(std::size_t pages) {
    const std::string text = text_of(records_for(pages));
    static const std::string program =
        "import java.util.*;\n"
        "class Fill {\n"
        "    public static void main(String[] arguments) throws Exception {\n"
        "        var text = new String(System.in.readNBytes(Integer.parseInt(arguments[0])), \"UTF-8\");\n"
        "        var records = new ArrayList<Map<String, String>>();\n"
        "        for (String record : text.split(\"\\n\\n\")) {\n"
        "            var fields = new HashMap<String, String>();\n"
        "            for (String line : record.split(\"\\n\")) {\n"
        "                int colon = line.indexOf(\": \");\n"
        "                if (colon > 0) fields.put(line.substring(0, colon), line.substring(colon + 2));\n"
        "            }\n"
        "            records.add(fields);\n"
        "        }\n"
        "        System.out.println(\"filled\");\n"
        "        System.in.read();\n"
        "        System.out.println(records.size());\n"
        "    }\n"
        "}\n";
    static const std::string start =
        "printf %s \"$2\" >\"$1/Fill.java\" && exec java -Xmx1g -XX:+UseSerialGC \"$1/Fill.java\" \"$3\"";
    return heap_of({"java",
                    {"sh", "-c", start, "sh", "FOLDER", program, std::to_string(text.size())},
                    text,
                    "filled",
                    1,
                    "heap of a Java machine, the package catalogue as maps"},
                   pages);
}

// Its memory table, and its cache of what it has written to files; db_bench makes the values up, and goes on
// reading until it is ended.
Corpus rocksdb(std::size_t pages) {
    constexpr std::size_t value_bytes = 400;
    return heap_of(
        {"rocksdb",
         {"db_bench", "--db=FOLDER/db", "--benchmarks=fillrandom,readrandom", "--compression_type=none",
          "--cache_size=1073741824", "--value_size=" + std::to_string(value_bytes),
          "--num=" + std::to_string(pages * page_bytes / value_bytes), "--reads=1000000000", "--seed=1"},
         "",
         "fillrandom",
         1,
         "heap of db_bench, RocksDB with values it makes up"},
        pages);
}

struct BuiltIn {
    const char* name;
    std::function<Corpus(std::size_t pages)> make;
};

const std::vector<BuiltIn>& built_in() {
    static const std::vector<BuiltIn> all = {
        {"catalogue", catalogue},
        {"binaries", [](std::size_t pages) { return files("/usr/bin", "programs", pages); }},
        {"source", [](std::size_t pages) { return files("/usr/include", "C and C++ headers", pages); }},
        {"json", json},
        {"zeros", zeros},
        {"random", random_bytes},
        {"redis", redis},
        {"memcached", memcached},
        {"postgresql", postgresql},
        {"sqlite", sqlite},
        {"python", python},
        {"java", java},
        {"rocksdb", rocksdb},
    };
    return all;
}

}  // namespace

const std::vector<std::string>& corpus_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all;
        for (const BuiltIn& each : built_in()) all.emplace_back(each.name);
        return all;
    }();
    return names;
}

Corpus built_in_corpus(const std::string& name, std::size_t pages) {
    Corpus corpus;
    for (const BuiltIn& each : built_in()) {
        if (each.name != name) continue;
        try {
            corpus = each.make(pages);
        } catch (const Interrupted&) {
            throw;
        } catch (const std::exception& error) {
            corpus.missing = error.what();
        }
    }
    corpus.name = name;
    if (corpus.bytes.empty() && corpus.missing.empty())
        corpus.missing = "there is nothing of it on this machine";
    return corpus;
}

Corpus file_corpus(const std::string& path, std::size_t pages) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw std::runtime_error("cannot read " + path + ": " + std::strerror(errno));
    const auto bytes = static_cast<std::size_t>(std::max<std::streamoff>(file.tellg(), 0));
    if (bytes < page_bytes) throw std::runtime_error(path + " is smaller than a page");
    // Read where it is needed: a file may be larger than memory.
    const std::size_t stretches = (bytes + stretch_bytes - 1) / stretch_bytes;
    const std::size_t take = std::min(stretches, (pages * page_bytes + stretch_bytes - 1) / stretch_bytes);
    std::vector<std::byte> contents;
    for (std::size_t i = 0; i < take; ++i) {
        throw_if_interrupted();
        std::array<char, stretch_bytes> stretch;
        file.seekg(static_cast<std::streamoff>(i * stretches / take * stretch_bytes));
        file.read(stretch.data(), stretch.size());
        const auto got = std::as_bytes(std::span(stretch)).first(static_cast<std::size_t>(file.gcount()));
        contents.insert(contents.end(), got.begin(), got.end());
        file.clear();
    }
    return {path, "file " + path, choose(contents, pages), ""};
}

Corpus process_corpus(pid_t process, std::size_t pages) {
    std::ifstream comm("/proc/" + std::to_string(process) + "/comm");
    std::string program;
    std::getline(comm, program);
    return {std::to_string(process),
            "private pages of process " + std::to_string(process) + " (" + program + ")",
            private_pages(process, pages), ""};
}

}  // namespace pnode::bench
