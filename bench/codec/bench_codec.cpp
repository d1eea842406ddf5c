// Codecs side by side: compress, decompress and hash, by block size, on real text.
//
// Data: the start of this machine's Debian package catalogue, or of made-up records where there is none; the
// header of the report ("data") says which. Blocks follow each
// other, so that what is measured is not one block in the first-level cache. Times are per block;
// bytes_per_second counts uncompressed bytes; `ratio` is bytes in / bytes out, headers left out; `ns_page` is
// per 4 KiB.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "bench/codec/scratch.h"
#include "bench/common/catalogue.h"
#include "compress/blob.h"
#include "compress/dictionary.h"

namespace {

using namespace pnode::bench;
using namespace pnode::compress;

constexpr std::size_t data_bytes_max = 8 << 20;
constexpr double page_bytes = 4096;

struct Data {
    std::string text;
    std::string name;
};

const Data& data() {
    static const Data chosen = [] {
        const Catalogue catalogue = load_catalogue();
        Data found = {"", catalogue.source};
        for (const Record& record : catalogue.records)
            if (found.text.size() < data_bytes_max) found.text += record.text + "\n\n";
        found.text.resize(found.text.size() / block_bytes_max * block_bytes_max);
        return found;
    }();
    return chosen;
}

Bytes block_at(std::size_t index, std::size_t block_bytes) {
    const std::size_t blocks = data().text.size() / block_bytes;
    return std::as_bytes(std::span(data().text)).subspan(index % blocks * block_bytes, block_bytes);
}

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

}  // namespace

int main(int argc, char** argv) {
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
    benchmark::RunSpecifiedBenchmarks();
}
