// How tightly the store packs: physical bytes over blob bytes, for sets from small to large.
//
// The blobs are as many and as large as pages of the Debian package catalogue make, compressed with lz4 as a
// heap does it. Three numbers a set: after loading it, after replacing three times as many blobs as it has,
// each a random one by one of another size, and after packing once what that left. Everything is from fixed
// seeds and nothing is timed: a run gives the same numbers anywhere.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/common/catalogue.h"
#include "bench/common/machine.h"
#include "compress/blob.h"
#include "cxl/blob_store.h"
#include "cxl/region.h"

namespace {

using namespace pnode;

constexpr std::size_t page_bytes = 4096;
// A block that saves less than an eighth stays near.
constexpr std::size_t blob_bytes_worth_storing = page_bytes - page_bytes / 8;
constexpr std::uint64_t megabyte = 1'000'000;

std::string catalogue_text(std::string* source) {
    const bench::Catalogue catalogue = bench::load_catalogue();
    std::string text;
    for (const bench::Record& record : catalogue.records) text += record.text;
    *source = catalogue.source;
    return text;
}

// Sizes of the blobs that the text's pages become.
std::vector<std::size_t> compressed_sizes(const std::string& text) {
    const compress::CodecChoice lz4{compress::codec_by_name("lz4"), 0};
    const std::size_t scratch_bytes =
        (compress::encode_scratch_bytes(lz4) / compress::scratch_alignment + 1) * compress::scratch_alignment;
    const std::unique_ptr<void, void (*)(void*)> scratch(
        std::aligned_alloc(compress::scratch_alignment, scratch_bytes), std::free);
    std::fill_n(static_cast<std::byte*>(scratch.get()), scratch_bytes, std::byte{0});
    std::vector<std::byte> blob(blob_bytes_worth_storing);
    std::vector<std::size_t> sizes;
    for (std::size_t at = 0; at + page_bytes <= text.size(); at += page_bytes) {
        const std::span contents(reinterpret_cast<const std::byte*>(text.data() + at), page_bytes);
        const std::size_t bytes = compress::encode(contents, {}, lz4, blob,
                                                   {static_cast<std::byte*>(scratch.get()), scratch_bytes});
        if (bytes != 0) sizes.push_back(bytes);
    }
    return sizes;
}

struct Set {
    Set(const std::vector<std::size_t>& blob_sizes, std::uint64_t blob_bytes)
        : sizes(blob_sizes), pick(0, blob_sizes.size() - 1) {
        std::string message;
        if (cxl::open_memory_region(blob_bytes * 2, &region, &message) != 0) {
            std::fprintf(stderr, "pnode-bench-packing: %s\n", message.c_str());
            std::exit(1);
        }
        store = std::make_unique<cxl::BlobStore>(*region);
    }

    void add() { blobs.push_back(store->allocate(sizes[pick(random)])); }
    void replace() {
        const std::size_t victim = random() % blobs.size();
        store->free(blobs[victim]);
        blobs[victim] = store->allocate(sizes[pick(random)]);
    }
    void pack() {
        cxl::BlobStore::Marking marking;
        while (store->mark_sparse(&marking)) continue;
        for (cxl::BlobRef& blob : blobs) {
            const cxl::BlobRef elsewhere =
                store->is_in_sparse(blob) ? store->allocate_elsewhere(blob) : cxl::no_blob;
            if (elsewhere == cxl::no_blob) continue;
            store->free(blob);
            blob = elsewhere;
        }
        while (store->unmark_sparse()) continue;
    }
    void report(const char* when, bool json) const {
        while (store->trim() != 0) continue;
        const cxl::StoreCounters counters = store->counters();
        const auto blob_bytes = static_cast<double>(counters.blob_bytes);
        const double slots = 100 * (static_cast<double>(counters.slot_bytes) / blob_bytes - 1);
        const double physical = 100 * (static_cast<double>(counters.physical_bytes) / blob_bytes - 1);
        if (json)
            std::puts(nlohmann::ordered_json({{"kind", "row"},
                                              {"when", when},
                                              {"blob_megabytes", blob_bytes / megabyte},
                                              {"slots_more_percent", slots},
                                              {"physical_more_percent", physical}})
                          .dump()
                          .c_str());
        else
            std::printf("%-8s %7.1f %10.2f %14.2f\n", when, blob_bytes / megabyte, slots, physical);
    }

    const std::vector<std::size_t>& sizes;
    std::mt19937_64 random{1};
    std::uniform_int_distribution<std::size_t> pick;
    std::unique_ptr<cxl::Region> region;
    std::unique_ptr<cxl::BlobStore> store;
    std::vector<cxl::BlobRef> blobs;
};

void measure(const std::vector<std::size_t>& sizes, std::uint64_t blob_bytes, bool json) {
    Set set(sizes, blob_bytes);
    while (set.store->counters().blob_bytes < blob_bytes) set.add();
    set.report("loaded", json);
    for (std::size_t left = 3 * set.blobs.size(); left > 0; --left) set.replace();
    set.report("replaced", json);
    set.pack();
    set.report("packed", json);
}

void print_heading(const std::string& source, const std::vector<std::size_t>& sizes, bool json) {
    std::uint64_t sum = 0;
    for (const std::size_t bytes : sizes) sum += bytes;
    const double average = static_cast<double>(sum) / static_cast<double>(sizes.size());
    if (json) {
        std::puts(bench::header("pnode-bench-packing",
                                {{"data", source}, {"blobs", sizes.size()}, {"blob_bytes_average", average}})
                      .dump()
                      .c_str());
        return;
    }
    std::printf("pages of %s\n%zu blobs, %.0f bytes on average\n", source.c_str(), sizes.size(), average);
    std::printf("%-8s %7s %10s %14s\n", "", "MB", "slots +%", "physical +%");
}

}  // namespace

// One option: --json.
int main(int count, char** arguments) {
    const bool json = count == 2 && std::string(arguments[1]) == "--json";
    if (count > 1 && !json) {
        std::fprintf(stderr, "pnode-bench-packing: the only option is --json\n");
        return 2;
    }
    std::string source;
    const std::vector<std::size_t> sizes = compressed_sizes(catalogue_text(&source));
    print_heading(source, sizes, json);
    for (const std::uint64_t megabytes : {5, 15, 42, 200}) measure(sizes, megabytes * megabyte, json);
}
