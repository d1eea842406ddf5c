// Which codec: the one whose far bytes times fault time is least. So half the bytes are worth a fault twice
// as long, and neither a codec that saves hardly anything nor one that is hardly bearable is named.
#include <algorithm>
#include <cstdio>

#include "bench/codec/results.h"

namespace pnode::bench {
namespace {

struct Candidate {
    std::string codec;
    double page_bytes = 0;  // a page takes
    double fault_ns = 0;    // or decoding, where no fault could be measured
    double pages = 0, timed_pages = 0;
    double cost() const { return page_bytes * fault_ns; }
};

// Sums first; then per page.
void add(const CorpusResults& result, std::vector<Candidate>* candidates) {
    for (const CodecRow& row : result.rows) {
        if (row.variant.heap_codec().empty() || !row.packed) continue;
        auto found = std::find_if(candidates->begin(), candidates->end(), [&](const Candidate& each) {
            return each.codec == row.variant.heap_codec();
        });
        if (found == candidates->end())
            found = candidates->insert(found, Candidate{row.variant.heap_codec()});
        const auto pages = static_cast<double>(row.packed->pages);
        const auto far_pages = static_cast<double>(row.packed->stored_pages - row.packed->zero_pages);
        const double ns = row.fault_p50_ns > 0 ? row.fault_p50_ns : row.packed->decode.p50_ns;
        found->page_bytes += static_cast<double>(row.packed->total_bytes());
        found->pages += pages;
        if (ns <= 0) continue;
        found->fault_ns += ns * far_pages;
        found->timed_pages += far_pages;
    }
}

std::string with_numbers(const char* pattern, double first, double second) {
    char text[200];
    std::snprintf(text, sizeof text, pattern, first, second);
    return text;
}

std::string subject_of(const std::vector<CorpusResults>& results) {
    return results.size() == 1 ? "For " + results.front().corpus + ": " : "For all of this together: ";
}

std::string compared(const Candidate& best, const Candidate& other) {
    const double bytes = other.page_bytes / best.page_bytes, time = other.fault_ns / best.fault_ns;
    if (bytes < 1)
        return "; " + other.codec +
               with_numbers(" takes %.0f %% less, but its faults %.2f times as long", 100 * (1 - bytes),
                            time);
    return "; " + other.codec +
           with_numbers(" takes %.0f %% more, and its faults %.2f times as long", 100 * (bytes - 1), time);
}

}  // namespace

std::string answer(const std::vector<CorpusResults>& results) {
    std::vector<Candidate> candidates;
    for (const CorpusResults& result : results) add(result, &candidates);
    std::erase_if(candidates, [](const Candidate& each) { return each.pages == 0 || each.page_bytes == 0; });
    const std::string subject = subject_of(results);
    if (candidates.empty())
        return subject + "any codec: nothing is far but pages of zeros, which take nothing.";
    for (Candidate& each : candidates) {
        each.page_bytes /= each.pages;
        each.fault_ns = each.timed_pages > 0 ? each.fault_ns / each.timed_pages : 0;
    }
    const auto densest =
        *std::min_element(candidates.begin(), candidates.end(),
                          [](const auto& a, const auto& b) { return a.page_bytes < b.page_bytes; });
    if (densest.page_bytes > 4096 - 4096 / 8.0)
        return subject +
               with_numbers(
                   "none: it does not compress; even the densest codec leaves %.0f of 4096 bytes a page.",
                   densest.page_bytes, 0);
    std::erase_if(candidates, [](const Candidate& each) { return each.fault_ns <= 0; });
    if (candidates.empty()) return subject + "any codec: hardly a page goes far that has to be decoded.";
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.cost() < b.cost(); });
    const Candidate& best = candidates.front();
    std::string words =
        subject + "--codec " + best.codec +
        with_numbers(": a page takes %.0f bytes and a fault %.1f us, the least bytes times fault",
                     best.page_bytes, best.fault_ns / 1e3);
    if (densest.codec != best.codec)
        for (const Candidate& each : candidates)
            if (each.codec == densest.codec) words += compared(best, each);
    if (candidates.size() > 1 && candidates[1].codec != densest.codec) words += compared(best, candidates[1]);
    return words + ".";
}

}  // namespace pnode::bench
