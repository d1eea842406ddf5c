#include "bench/fault/tier.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <system_error>

#include "runtime/handles.h"

namespace pnode::bench {
namespace {

#ifndef MADV_PAGEOUT
constexpr int MADV_PAGEOUT = 21;  // Linux 5.4
#endif

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

void must(int error, const char* what) {
    if (error == 0) return;
    const std::string cure = pn_last_message();
    throw std::runtime_error(std::string(what) + ": " + pn_strerror(error) +
                             (cure.empty() ? "" : " (" + cure + ")"));
}

}  // namespace

HeapTier::HeapTier(std::uint32_t engine_id, const std::string& codec_name, std::size_t pages)
    : Tier(engine_id == PN_ENGINE_INLINE ? "inline" : "thread", codec_name), pages_(pages) {
    pn_heap_options options;
    pn_heap_options_init(&options);
    options.near_bytes_max = 0;
    options.activation_bytes = 0;
    options.codec = codec.c_str();
    options.engine = engine_id;
    must(pn_heap_open(&options, &heap_), "pn_heap_open");
    void* buffer = nullptr;
    const int error = pn_buffer_alloc(heap_, pages * page_bytes, 0, &buffer);
    if (error != 0) pn_heap_close(heap_);
    must(error, "pn_buffer_alloc");
    buffer_ = static_cast<std::byte*>(buffer);
}

HeapTier::~HeapTier() {
    pn_heap_close(heap_);
}

void HeapTier::demote(std::size_t first_page, std::size_t pages) {
    must(pn_demote(heap_, buffer_ + first_page * page_bytes, pages * page_bytes, nullptr), "pn_demote");
}

std::vector<std::size_t> HeapTier::far_pages() const {
    std::vector<std::uint8_t> states(pages_);
    must(pn_query(heap_, buffer_, pages_ * page_bytes, states.data()), "pn_query");
    std::vector<std::size_t> far;
    for (std::size_t page = 0; page < pages_; ++page)
        if (states[page] == PN_PAGE_FAR) far.push_back(page);
    return far;
}

cxl::StoreCounters HeapTier::stored() const {
    return heap_->heap.far.store()->counters();
}

pn_stats_t HeapTier::stats() const {
    pn_stats_t stats = {};
    stats.struct_bytes = sizeof stats;
    stats.version = PN_VERSION;
    must(pn_stats(heap_, &stats), "pn_stats");
    return stats;
}

ZramTier::ZramTier(const ZramSwap&, std::size_t pages)
    : Tier("zram", "lz4"), memory_(pages * page_bytes), pages_(pages) {}

void ZramTier::demote(std::size_t first_page, std::size_t pages) {
    if (madvise(memory() + first_page * page_bytes, pages * page_bytes, MADV_PAGEOUT) != 0)
        fail("MADV_PAGEOUT");
}

std::vector<std::size_t> ZramTier::far_pages() const {
    constexpr std::uint64_t swapped = std::uint64_t{1} << 62;
    std::vector<std::uint64_t> entries(pages_);
    const std::size_t bytes = entries.size() * sizeof entries[0];
    const auto first = reinterpret_cast<std::uintptr_t>(memory()) / page_bytes;
    const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (file < 0) fail("/proc/self/pagemap");
    std::size_t done = 0;
    while (done < bytes) {
        const ssize_t got = pread(file, reinterpret_cast<char*>(entries.data()) + done, bytes - done,
                                  static_cast<off_t>(first * sizeof entries[0] + done));
        if (got <= 0) break;
        done += static_cast<std::size_t>(got);
    }
    close(file);
    if (done < bytes) fail("read of /proc/self/pagemap");
    std::vector<std::size_t> far;
    for (std::size_t page = 0; page < pages_; ++page)
        if (entries[page] & swapped) far.push_back(page);
    return far;
}

}  // namespace pnode::bench
