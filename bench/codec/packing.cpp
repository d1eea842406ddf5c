#include "bench/codec/packing.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "bench/common/interrupt.h"
#include "bench/common/samples.h"
#include "bench/common/together.h"
#include "compress/blob.h"
#include "cxl/blob_store.h"
#include "cxl/region.h"
#include "runtime/offload.h"

namespace pnode::bench {
namespace {

using namespace pnode::compress;

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t dictionary_bytes_max = 49152;
constexpr std::size_t sampled = 16;  // one page in so many is trained on; of few pages, more
constexpr std::size_t samples_min = 128;

// Turns blocks into blobs and back, the way a variant says.
class Packer {
  public:
    Packer(const Variant& variant, const TrainedContent& trained) : key_(seed) {
        if (variant.codec != "same" && !parse_codec_choice(variant.codec, &choice_))
            throw std::invalid_argument("no codec is called " + variant.codec);
        if (variant.has_dictionary) take_dictionary(trained);
        scratch_.emplace(std::max(encode_scratch_bytes(choice_), decode_scratch_bytes_max()));
        std::string why;
        offload_.open(choice_, scratch_->span(), &why);
        if (choice_.offload != compress::Offload::none &&
            (offload_.accelerator() == nullptr || !offload_.accelerator()->has_queue()))
            throw std::runtime_error(why.empty() ? "no accelerator queue here" : why);
    }

    ContentHash hash(Bytes block) const { return key_.hash(block); }

    // Bytes of blob; 0 when it is not worth storing.
    std::size_t encode(Bytes block, const ContentHash& hash, MutableBytes blob) {
        if (offload_.accelerator() == nullptr)
            return compress::encode(block, hash, choice_, blob, scratch_->span());
        EncodeJob job{block, hash, blob};
        compress::encode({&job, 1}, choice_, scratch_->span(), *offload_.accelerator());
        return job.blob_bytes;
    }

    bool decode(Bytes blob, MutableBytes block) {
        return compress::decode(blob, key_, block, scratch_->span(), offload_.accelerator(),
                                choice_.dictionary) == DecodeResult::ok;
    }

    // Prepared, as a heap keeps it.
    std::size_t dictionary_bytes() { return memory_ ? memory_->span().size() : 0; }

  private:
    static constexpr std::byte seed[32] = {};

    void take_dictionary(const TrainedContent& trained) {
        if (!trained.is_trained())
            throw std::runtime_error("too little, or too unlike, to train a dictionary on");
        memory_.emplace(Dictionary::memory_bytes(trained.content().size(), choice_.level));
        choice_.dictionary = Dictionary::make(memory_->span(), trained.content(), choice_.level, 1);
        if (choice_.dictionary == nullptr) throw std::runtime_error("the dictionary cannot be made");
    }

    BlobKey key_;
    CodecChoice choice_;
    std::optional<Scratch> memory_;  // the dictionary's
    std::optional<Scratch> scratch_;
    pnode::Offload offload_;
};

struct StoredBlock {
    std::size_t at;  // in the corpus
    cxl::BlobRef blob;
};

// The blobs of one corpus, in a store of their own.
class Shelf {
  public:
    explicit Shelf(std::size_t corpus_bytes) {
        std::string message;
        // Twice: slabs of every size are begun.
        const std::size_t bytes = std::max<std::size_t>(2 * corpus_bytes, 32 << 20);
        if (cxl::open_memory_region(bytes, &region_, &message) != 0) throw std::runtime_error(message);
        store_ = std::make_unique<cxl::BlobStore>(*region_);
    }
    cxl::BlobRef put(Bytes blob) {
        const cxl::BlobRef ref = store_->allocate(blob.size());
        if (ref == cxl::no_blob || !store_->write(ref, blob)) throw std::runtime_error("the store is full");
        return ref;
    }
    Bytes get(cxl::BlobRef ref) const { return store_->bytes(ref); }
    cxl::StoreCounters counters() {
        while (store_->trim() != 0) continue;
        return store_->counters();
    }

  private:
    std::unique_ptr<cxl::Region> region_;
    std::unique_ptr<cxl::BlobStore> store_;
};

PageTimes times_of(std::vector<std::uint32_t> latencies, std::size_t pages_a_block) {
    const auto pages = static_cast<double>(pages_a_block);
    const Round round = summarize(latencies, latencies.size(), 1);
    return {round.p50_ns / pages, round.p99_ns / pages};
}

bool is_zero(Bytes block) {
    std::uint64_t word = 0;
    return is_same_filled(block, &word) && word == 0;
}

std::vector<StoredBlock> store_all(Bytes corpus, const Variant& variant, Packer& packer, Shelf& shelf,
                                   Packed* packed) {
    const std::size_t pages_a_block = variant.block_bytes / page_bytes;
    std::vector<std::byte> blob(variant.block_bytes - variant.block_bytes / 8);
    std::vector<std::uint32_t> latencies;
    std::vector<StoredBlock> stored;
    for (std::size_t at = 0; at + variant.block_bytes <= corpus.size(); at += variant.block_bytes) {
        throw_if_interrupted();
        const Bytes block = corpus.subspan(at, variant.block_bytes);
        packed->pages += pages_a_block;
        if (is_zero(block)) {
            packed->zero_pages += pages_a_block;
            packed->stored_pages += pages_a_block;
            continue;
        }
        const ContentHash hash = packer.hash(block);
        const std::uint64_t before = now_ns();
        const std::size_t bytes = packer.encode(block, hash, blob);
        latencies.push_back(clamp_ns(now_ns() - before));
        if (bytes == 0) continue;
        packed->stored_pages += pages_a_block;
        stored.push_back({at, shelf.put(Bytes(blob).first(bytes))});
    }
    packed->compress = times_of(std::move(latencies), pages_a_block);
    return stored;
}

void check_all(Bytes corpus, const Variant& variant, const std::vector<StoredBlock>& stored, Packer& packer,
               const Shelf& shelf, Packed* packed) {
    std::vector<std::byte> block(variant.block_bytes);
    std::vector<std::uint32_t> latencies;
    for (const StoredBlock& each : stored) {
        throw_if_interrupted();
        const Bytes blob = shelf.get(each.blob);
        const std::uint64_t before = now_ns();
        const bool is_right = packer.decode(blob, block);
        latencies.push_back(clamp_ns(now_ns() - before));
        if (!is_right || std::memcmp(block.data(), corpus.data() + each.at, block.size()) != 0)
            throw std::runtime_error(variant.name() + ": a block came back wrong");
    }
    packed->decode = times_of(std::move(latencies), variant.block_bytes / page_bytes);
}

}  // namespace

TrainedContent::TrainedContent(Bytes corpus) {
    const std::size_t pages = corpus.size() / page_bytes;
    const std::size_t stride = std::clamp<std::size_t>(pages / samples_min, 1, sampled);
    std::vector<std::byte> samples;
    for (std::size_t at = 0; at + page_bytes <= corpus.size(); at += stride * page_bytes) {
        const Bytes page = corpus.subspan(at, page_bytes);
        if (!is_zero(page)) samples.insert(samples.end(), page.begin(), page.end());
    }
    content_.resize(std::min(dictionary_bytes_max, samples.size() / 10));
    if (!content_.empty()) content_.resize(Dictionary::train(samples, page_bytes, content_));
}

Packed pack(Bytes corpus, const Variant& variant, const TrainedContent& trained) {
    Packer packer(variant, trained);
    Shelf shelf(corpus.size());
    Packed packed;
    const std::vector<StoredBlock> stored = store_all(corpus, variant, packer, shelf, &packed);
    check_all(corpus, variant, stored, packer, shelf, &packed);
    const cxl::StoreCounters counters = shelf.counters();
    packed.far_bytes = counters.physical_bytes + packer.dictionary_bytes();
    packed.slot_bytes = counters.slot_bytes;
    packed.blob_bytes = counters.blob_bytes;
    return packed;
}

}  // namespace pnode::bench
