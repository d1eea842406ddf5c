// Codecs side by side: compress, decompress and hash, by block size, on real text.
//
// Data: the start of this machine's Debian package catalogue (`apt-cache dumpavail`), or, where there is
// none, text that looks like JSON records; the header of the report ("data") says which. Blocks follow each
// other, so that what is measured is not one block in the first-level cache. Times are per block;
// bytes_per_second counts uncompressed bytes; `ratio` is bytes in / bytes out, headers left out; `ns_page` is
// per 4 KiB.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "bench/common/machine.h"
#include "compress/blob.h"
#include "compress/dictionary.h"

namespace {

using namespace pnode::compress;

constexpr std::size_t data_bytes_max = 8 << 20;
constexpr double page_bytes = 4096;

std::string package_catalogue() {
    std::string text;
    FILE* const pipe = popen("apt-cache dumpavail 2>/dev/null", "r");
    if (pipe == nullptr) return text;
    std::vector<char> part(65536);
    while (text.size() < data_bytes_max) {
        const std::size_t bytes = std::fread(part.data(), 1, part.size(), pipe);
        if (bytes == 0) break;
        text.append(part.data(), bytes);
    }
    pclose(pipe);
    return text;
}

std::string json_records() {
    std::string text;
    std::uint64_t state = 1;
    while (text.size() < data_bytes_max) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        text += "{\"id\":" + std::to_string(state >> 40) + ",\"name\":\"user" + std::to_string(state >> 52) +
                "\",\"active\":" + (state >> 63 != 0 ? "true" : "false") +
                ",\"score\":" + std::to_string(state >> 56) + "}\n";
    }
    return text;
}

struct Data {
    std::string text;
    const char* name;
};

const Data& data() {
    static const Data chosen = [] {
        Data found = {package_catalogue(), "Debian package catalogue"};
        if (found.text.size() < block_bytes_max) found = {json_records(), "synthetic JSON records"};
        found.text.resize(found.text.size() / block_bytes_max * block_bytes_max);
        return found;
    }();
    return chosen;
}

Bytes block_at(std::size_t index, std::size_t block_bytes) {
    const std::size_t blocks = data().text.size() / block_bytes;
    return std::as_bytes(std::span(data().text)).subspan(index % blocks * block_bytes, block_bytes);
}

class Scratch {
  public:
    explicit Scratch(std::size_t bytes) : bytes_(bytes), memory_(new (alignment) std::byte[bytes]()) {}
    MutableBytes span() { return {memory_.get(), bytes_}; }

  private:
    static constexpr std::align_val_t alignment{scratch_alignment};
    struct Delete {
        void operator()(std::byte* memory) const { ::operator delete[](memory, alignment); }
    };
    std::size_t bytes_;
    std::unique_ptr<std::byte[], Delete> memory_;
};

// The codec of a choice, with the choice's dictionary if it has one.
std::size_t pack(const CodecChoice& choice, Bytes block, MutableBytes packed, MutableBytes scratch) {
    if (choice.dictionary == nullptr) return choice.codec->compress(block, packed, choice.level, scratch);
    return dictionary_codec_of(choice.codec)->compress(block, packed, *choice.dictionary, scratch);
}

bool unpack(const CodecChoice& choice, Bytes packed, MutableBytes block, MutableBytes scratch) {
    if (choice.dictionary == nullptr) return choice.codec->decompress(packed, block, scratch);
    return dictionary_codec_of(choice.codec)->decompress(packed, block, *choice.dictionary, scratch);
}

// Trained on every 16th page of the data, as a heap's would be on its own cold pages.
const Dictionary* trained_dictionary(int zstd_level) {
    constexpr std::size_t page = 4096, dictionary_bytes = 32768;
    static const std::string content = [] {
        std::string samples, trained(dictionary_bytes, '\0');
        for (std::size_t at = 0; at + page <= data().text.size(); at += 16 * page)
            samples.append(data().text, at, page);
        trained.resize(Dictionary::train(std::as_bytes(std::span(samples)), page,
                                         std::as_writable_bytes(std::span(trained))));
        return trained;
    }();
    if (content.empty()) return nullptr;
    auto* const memory = new Scratch(Dictionary::memory_bytes(content.size(), zstd_level));  // for good
    return Dictionary::make(memory->span(), std::as_bytes(std::span(content)), zstd_level, 1);
}

void report(benchmark::State& state, std::size_t block_bytes) {
    const double pages =
        static_cast<double>(state.iterations()) * static_cast<double>(block_bytes) / page_bytes;
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(block_bytes));
    state.counters["page_time"] =
        benchmark::Counter(pages, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void compress(benchmark::State& state, CodecChoice choice) {
    const auto block_bytes = static_cast<std::size_t>(state.range(0));
    Scratch scratch(std::max(encode_scratch_bytes(choice), decode_scratch_bytes_max()));
    std::vector<std::byte> packed(choice.codec->bound(block_bytes));
    std::size_t index = 0, bytes_out = 0;
    for (auto _ : state) bytes_out += pack(choice, block_at(index++, block_bytes), packed, scratch.span());
    report(state, block_bytes);
    state.counters["ratio"] = static_cast<double>(index * block_bytes) / static_cast<double>(bytes_out);
}

void decompress(benchmark::State& state, CodecChoice choice) {
    const auto block_bytes = static_cast<std::size_t>(state.range(0));
    Scratch scratch(std::max(encode_scratch_bytes(choice), decode_scratch_bytes_max()));
    std::vector<std::vector<std::byte>> packed(data().text.size() / block_bytes);
    std::size_t bytes_out = 0;
    for (std::size_t i = 0; i < packed.size(); ++i) {
        packed[i].resize(choice.codec->bound(block_bytes));
        packed[i].resize(pack(choice, block_at(i, block_bytes), packed[i], scratch.span()));
        bytes_out += packed[i].size();
    }
    std::vector<std::byte> decoded(block_bytes);
    std::size_t index = 0;
    bool right = true;
    for (auto _ : state)
        right = unpack(choice, packed[index++ % packed.size()], decoded, scratch.span()) && right;
    if (!right) state.SkipWithError("a block did not decode");
    report(state, block_bytes);
    state.counters["ratio"] = static_cast<double>(data().text.size()) / static_cast<double>(bytes_out);
}

void hash(benchmark::State& state) {
    const auto block_bytes = static_cast<std::size_t>(state.range(0));
    const std::array<std::byte, 32> seed{};
    const BlobKey key(seed);
    std::size_t index = 0;
    for (auto _ : state) benchmark::DoNotOptimize(key.hash(block_at(index++, block_bytes)));
    report(state, block_bytes);
}

void with_block_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgName("bytes")->Arg(4096)->Arg(16384)->Arg(65536);
}

void add(const std::string& name, const CodecChoice& choice) {
    with_block_sizes(benchmark::RegisterBenchmark(("compress/" + name).c_str(), compress, choice));
    with_block_sizes(benchmark::RegisterBenchmark(("decompress/" + name).c_str(), decompress, choice));
}

// --json: one object per line, as the other benchmarks print; "compress/lz4/bytes:4096" taken apart.
class LinesReporter : public benchmark::BenchmarkReporter {
  public:
    bool ReportContext(const Context&) override {
        std::puts(pnode::bench::header("pnode-bench-codec",
                                       {{"data", data().name}, {"data_bytes", data().text.size()}})
                      .dump()
                      .c_str());
        return true;
    }
    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            const std::string& name = run.run_name.function_name;
            const std::size_t slash = name.find('/');
            nlohmann::ordered_json line = {{"kind", "row"},
                                           {"operation", name.substr(0, slash)},
                                           {"codec", nullptr},
                                           {"block_bytes", std::stoul(run.run_name.args.substr(6))},
                                           {"ns_page", run.counters.at("page_time").value * 1e9},
                                           {"ratio", nullptr}};
            if (slash != std::string::npos) line["codec"] = name.substr(slash + 1);
            if (const auto ratio = run.counters.find("ratio"); ratio != run.counters.end())
                line["ratio"] = ratio->second.value;
            std::puts(line.dump().c_str());
        }
    }
};

bool take_json_flag(int* argc, char** argv) {
    char** const end = argv + *argc;
    char** const kept =
        std::remove_if(argv + 1, end, [](const char* text) { return std::string_view(text) == "--json"; });
    *argc = static_cast<int>(kept - argv);
    return kept != end;
}

}  // namespace

int main(int argc, char** argv) {
    const bool json = take_json_flag(&argc, argv);
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::AddCustomContext("data", data().name);
    for (const char* name : {"lz4", "zstd:-3", "zstd:1", "zstd:3", "zstd:9", "deflate"}) {
        CodecChoice choice;
        if (!parse_codec_choice(name, &choice)) return 1;
        add(name, choice);
    }
    for (const char* name : {"lz4", "zstd:1", "zstd:3"}) {
        CodecChoice choice;
        if (!parse_codec_choice(name, &choice)) return 1;
        choice.dictionary = trained_dictionary(choice.level);
        if (choice.dictionary == nullptr) return 1;
        add(std::string(name) + "+dict", choice);
    }
    with_block_sizes(benchmark::RegisterBenchmark("hash", hash));
    LinesReporter lines;
    if (json)
        benchmark::RunSpecifiedBenchmarks(&lines);
    else
        benchmark::RunSpecifiedBenchmarks();
}
