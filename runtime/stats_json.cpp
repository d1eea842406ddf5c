#include "runtime/stats_json.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace pnode {
namespace {

constexpr std::size_t json_bytes_max = 8192;

// Appends to a fixed buffer; remembers when it did not fit.
class Text {
  public:
    Text(char* text, std::size_t capacity) noexcept : text_(text), capacity_(capacity) {}
    void add(const char* format, ...) noexcept __attribute__((format(printf, 2, 3))) {
        if (length_ >= capacity_) return;
        va_list arguments;
        va_start(arguments, format);
        const int more = std::vsnprintf(text_ + length_, capacity_ - length_, format, arguments);
        va_end(arguments);
        length_ += more > 0 ? static_cast<std::size_t>(more) : 0;
    }
    std::size_t length() const noexcept { return length_ < capacity_ ? length_ : 0; }

  private:
    char* text_;
    std::size_t capacity_;
    std::size_t length_ = 0;
};

const char* engine_name(Engine engine) noexcept {
    switch (engine) {
        case Engine::none:
            return "none";
        case Engine::thread:
            return "thread";
        case Engine::in_line:
            return "inline";
    }
    return "unknown";
}

bool write_all(int fd, const char* text, std::size_t length) noexcept {
    while (length != 0) {
        const ssize_t written = ::write(fd, text, length);
        if (written <= 0) return false;
        text += written;
        length -= static_cast<std::size_t>(written);
    }
    return true;
}

void take_snapshot(const compress::iaa::Accelerator& accelerator, pn_stats_t* out) noexcept {
    const compress::iaa::Counters& counted = accelerator.counters();
    for (const auto& queue : accelerator.queues()) out->accelerator_queues += queue.is_usable() ? 1 : 0;
    out->accelerator_pages = counted.compressed + counted.decompressed;
    for (const auto& cause : counted.software) out->accelerator_fallbacks += cause;
}

// "fallbacks": {"busy": 3}: the causes that were.
void add_fallbacks(const compress::iaa::Accelerator& accelerator, Text* json) noexcept {
    const char* separator = "";
    json->add(", \"fallbacks\": {");
    for (unsigned cause = 0; cause < compress::iaa::causes; ++cause) {
        const std::uint64_t count = accelerator.counters().software[cause];
        if (count == 0) continue;
        json->add("%s\"%s\": %llu", separator, name_of(static_cast<compress::iaa::Cause>(cause)),
                  static_cast<unsigned long long>(count));
        separator = ", ";
    }
    json->add("}");
}

}  // namespace

void take_snapshot(Heap& heap, pn_stats_t* out) noexcept {
    const Statistics& counted = heap.statistics;
    *out = pn_stats_t{};
    out->struct_bytes = sizeof *out;
    out->version = PN_VERSION;
    out->heap_bytes = heap.spans.allocated_pages() * page_bytes;
    out->near_bytes = heap.near.pages() * page_bytes;
    out->near_bytes_peak = counted.near_pages_peak.value() * page_bytes;
    out->near_bytes_max = heap.near.is_limited() ? heap.near.limit_pages() * page_bytes : 0;
    out->limbo_bytes = counted.limbo_pages.value() * page_bytes;
    out->pinned_bytes = counted.pinned_pages.value() * page_bytes;
    out->far_logical_bytes = counted.far_pages.value() * page_bytes;
    out->far_bytes = heap.far.physical_bytes();
    out->far_bytes_max = heap.far.bytes_max();
    out->total_bytes_max = heap.near.total_pages() * page_bytes;
    out->kept_blob_bytes = counted.kept_blob_bytes.value();
    // The page words and the span table of what is allocated, and the lanes.
    out->metadata_bytes = heap.spans.allocated_pages() * sizeof(AtomicPageWord) + sizeof(Heap);
    out->demotions = counted.demotions.value();
    out->demotions_unchanged = counted.demotions_unchanged.value();
    out->demotions_zero = counted.demotions_zero.value();
    out->promotions = counted.promotions.value();
    out->limbo_returns = counted.limbo_returns.value();
    out->released_pages = counted.released_pages.value();
    out->incompressible = counted.incompressible.value();
    out->refused_pinned = counted.refused_pinned.value();
    out->far_full = counted.far_full.value();
    out->faults = counted.faults.value();
    out->faults_fresh = counted.faults_fresh.value();
    out->faults_redundant = counted.faults_redundant.value();
    out->fault_p50_ns = counted.fault_ns.percentile(50);
    out->fault_p99_ns = counted.fault_ns.percentile(99);
    out->poisoned = counted.poisoned.value();
    out->evictions_direct = counted.evictions_direct.value();
    out->evictions_in_place = counted.evictions_in_place.value();
    out->leases = heap.leases.count();
    out->fork_events = counted.fork_events.value();
    out->prefetches = counted.prefetches.value();
    out->prefetches_dropped = counted.prefetches_dropped.value();
    out->recompressed = counted.recompressed.value();
    out->recompression_cpu_ns = counted.recompression_cpu_ns.value();
    out->dictionaries = heap.far.dictionaries().count();
    out->dictionary_bytes = heap.far.dictionaries().bytes();
    out->blocks_16k = heap.far.blocks(4);
    out->blocks_64k = heap.far.blocks(16);
    out->dictionaries_trained = counted.dictionaries_trained.value();
    out->blobs_moved = counted.blobs_moved.value();
    out->packing_cpu_ns = counted.packing_cpu_ns.value();
    out->promotions_ahead = counted.promotions_ahead.value();
    if (compress::iaa::Accelerator* const accelerator = heap.offload.accelerator())
        take_snapshot(*accelerator, out);
}

std::size_t stats_json(Heap& heap, char* text, std::size_t capacity) noexcept {
    pn_stats_t snapshot;
    take_snapshot(heap, &snapshot);
    char whole[json_bytes_max];  // the caller's buffer is left alone when it is too small
    Text json(whole, sizeof whole);
    json.add("{\"version\": %u, \"engine\": \"%s\", \"eviction\": \"%s\", \"codec\": \"%s\"", PN_VERSION,
             engine_name(heap.engine),
             heap.engine == Engine::none ? "none"
             : heap.moves_pages          ? "move"
                                         : "write-protect",
             compress::name_of(heap.far.codec()));
#define PNODE_FIELD(name, unit, sentence) \
    json.add(", \"" #name "\": %llu", static_cast<unsigned long long>(snapshot.name));
    PN_STATS_LIST(PNODE_FIELD)
#undef PNODE_FIELD
    if (compress::iaa::Accelerator* const accelerator = heap.offload.accelerator())
        add_fallbacks(*accelerator, &json);
    json.add("}\n");
    if (json.length() >= capacity) return 0;
    std::memcpy(text, whole, json.length() + 1);
    return json.length();
}

int write_stats_file(Heap& heap, const char* path) noexcept {
    char json[json_bytes_max];
    const std::size_t length = stats_json(heap, json, sizeof json);
    char temporary[StatsFile::path_max + 32];
    std::snprintf(temporary, sizeof temporary, "%s.%d.tmp", path, ::getpid());
    const int fd = ::open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return errno;
    const bool written = write_all(fd, json, length);
    const int error = errno;
    ::close(fd);
    if (!written) {
        ::unlink(temporary);
        return error;
    }
    return ::rename(temporary, path) == 0 ? 0 : errno;
}

}  // namespace pnode
