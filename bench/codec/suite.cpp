#include "bench/codec/suite.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <stdexcept>

#include "bench/codec/corpus.h"
#include "bench/codec/faults.h"
#include "bench/codec/kernel.h"
#include "bench/common/interrupt.h"
#include "bench/common/zram_swap.h"

namespace pnode::bench {
namespace {

// A number that names no file is a process.
Corpus corpus_of(const std::string& input, std::size_t pages) {
    pid_t process = 0;
    const auto [end, error] = std::from_chars(input.data(), input.data() + input.size(), process);
    const bool is_number = error == std::errc() && end == input.data() + input.size() && process > 0;
    return is_number && access(input.c_str(), F_OK) != 0 ? process_corpus(process, pages)
                                                         : file_corpus(input, pages);
}

class Suite {
  public:
    Suite(const CodecOptions& options, const CodecReport& report) : options_(options), report_(report) {
        std::vector<std::size_t> block_bytes;
        for (const unsigned kib : options.block_kib) block_bytes.push_back(kib * std::size_t{1024});
        variants_ = all_variants(options.codecs, block_bytes, options.dictionaries);
    }

    // The swap before any thread: making it forks.
    void run() {
        open_swap();
        report_.begin();
        std::vector<CorpusResults> results;
        const auto measured = [&](const Corpus& corpus) {
            results.push_back(measure(corpus));
            report_.add(results.back());
        };
        for (const std::string& input : options_.inputs) measured(corpus_of(input, options_.pages));
        for (const std::string& name : options_.corpora) measured(built_in_corpus(name, options_.pages));
        report_.end(results);
    }

  private:
    void open_swap() {
        why_no_swap_ = options_.zram ? ZramSwap::why_unavailable() : "not asked for";
        if (why_no_swap_.empty()) swap_.emplace(2 * fault_pages_max * 4096);
    }

    // By value: the same pages for every block size, where there are enough.
    CorpusResults measure(Corpus corpus) {
        if (const std::size_t whole = corpus.bytes.size() / 65536 * 65536; whole > 0)
            corpus.bytes.resize(whole);
        CorpusResults result;
        result.corpus = corpus.name;
        result.source = corpus.source;
        result.missing = corpus.missing;
        result.pages = corpus.bytes.size() / 4096;
        if (!result.missing.empty()) return result;
        measure_zram(corpus, &result);  // before any thread, too
        const TrainedContent trained(options_.dictionaries ? compress::Bytes(corpus.bytes)
                                                           : compress::Bytes());
        for (const Variant& variant : variants_) result.rows.push_back(measure(corpus, variant, trained));
        add_faults(corpus, &result);
        return result;
    }

    void measure_zram(const Corpus& corpus, CorpusResults* result) const {
        result->why_no_zram = options_.zram ? ZramDevice::why_unavailable() : "not asked for";
        if (!result->why_no_zram.empty()) return;
        try {
            result->zram_bytes = zram_bytes(corpus.bytes);
        } catch (const Interrupted&) {
            throw;
        } catch (const std::runtime_error& error) {
            result->why_no_zram = error.what();
        }
    }

    static CodecRow measure(const Corpus& corpus, const Variant& variant, const TrainedContent& trained) {
        CodecRow row;
        row.variant = variant;
        try {
            row.packed = pack(corpus.bytes, variant, trained);
            if (row.packed->pages == 0) {
                row.packed.reset();
                row.reason = "smaller than a block";
            }
        } catch (const Interrupted&) {
            throw;
        } catch (const std::runtime_error& error) {
            row.reason = error.what();
        }
        return row;
    }

    void add_faults(const Corpus& corpus, CorpusResults* result) const {
        std::vector<std::string> codecs;
        for (const CodecRow& row : result->rows)
            if (row.packed && row.variant.is_a_heaps_at_once()) codecs.push_back(row.variant.codec);
        const FaultCosts costs =
            measure_faults(corpus.bytes, codecs, swap_ ? &*swap_ : nullptr, options_.rounds);
        for (CodecRow& row : result->rows)
            if (row.packed && row.variant.is_a_heaps_at_once()) add_fault(costs, &row);
        for (CodecRow& row : result->rows)
            if (row.packed && !row.variant.is_a_heaps_at_once()) compute_fault(*result, &row);
        if (const auto found = costs.by_codec.find("zram"); found != costs.by_codec.end())
            result->zram_fault = found->second;
        else
            result->why_no_zram_fault = swap_ ? costs.why_none.at("zram") : why_no_swap_;
    }

    static void add_fault(const FaultCosts& costs, CodecRow* row) {
        if (const auto found = costs.by_codec.find(row->variant.codec); found != costs.by_codec.end()) {
            row->fault_p50_ns = found->second.p50_ns;
            row->fault_p99_ns = found->second.p99_ns;
        } else {
            row->reason = "no fault: " + costs.why_none.at(row->variant.codec);
        }
    }

    // All of a fault but its decoding is the same whatever is decoded.
    static void compute_fault(const CorpusResults& result, CodecRow* row) {
        const auto heap = std::find_if(result.rows.begin(), result.rows.end(), [](const CodecRow& each) {
            return each.variant.is_a_heaps_at_once() && each.fault_p50_ns > 0;
        });
        if (heap == result.rows.end() || row->packed->decode.p50_ns <= 0) return;
        const auto pages = static_cast<double>(row->variant.block_bytes) / 4096;
        row->fault_p50_ns =
            heap->fault_p50_ns + pages * row->packed->decode.p50_ns - heap->packed->decode.p50_ns;
        row->fault_p99_ns =
            heap->fault_p99_ns + pages * row->packed->decode.p99_ns - heap->packed->decode.p99_ns;
        row->fault_is_computed = true;
    }

    const CodecOptions& options_;
    const CodecReport& report_;
    std::vector<Variant> variants_;
    std::string why_no_swap_;
    std::optional<ZramSwap> swap_;
};

}  // namespace

void run_codec_suite(const CodecOptions& options, const CodecReport& report) {
    Suite(options, report).run();
}

}  // namespace pnode::bench
