#include "bench/scale/subject.h"

#include <cstring>
#include <stdexcept>
#include <utility>

#include "bench/common/interrupt.h"
#include "bench/common/samples.h"

namespace pnode::bench {
namespace {

void must(int error, const char* what) {
    if (error != 0)
        throw std::runtime_error(std::string(what) + ": " + pn_strerror(error) + ": " + pn_last_message());
}

}  // namespace

ScaleSubject::ScaleSubject(HeapShape shape, std::string_view text, std::uint64_t near_bytes,
                           std::uint64_t seed)
    : shape_(std::move(shape)), random_(seed) {
    const std::string node = "memory:" + std::to_string(shape_.pages * PN_PAGE_BYTES);
    pn_heap_options options;
    pn_heap_options_init(&options);
    options.address_bytes_max = shape_.address_bytes;
    options.near_bytes_max = near_bytes;
    options.node_spec = node.c_str();
    options.engine = PN_ENGINE_INLINE;
    const std::uint64_t began_ns = now_ns();
    must(pn_heap_open(&options, &heap_), "pn_heap_open");
    open_ns_ = static_cast<double>(now_ns() - began_ns);
    void* buffer = nullptr;
    const int error = pn_buffer_alloc(heap_, shape_.address_bytes, 0, &buffer);
    if (error != 0) pn_heap_close(heap_);
    must(error, "pn_buffer_alloc");
    buffer_ = static_cast<std::uint8_t*>(buffer);
    fill(text);
}

ScaleSubject::~ScaleSubject() {
    pn_heap_close(heap_);
}

std::uint8_t* ScaleSubject::page(std::uint64_t index) const noexcept {
    const std::uint64_t areas = shape_.pages / shape_.area_pages;
    const std::uint64_t area_bytes = shape_.address_bytes / areas / PN_PAGE_BYTES * PN_PAGE_BYTES;
    return buffer_ + index / shape_.area_pages * area_bytes + index % shape_.area_pages * PN_PAGE_BYTES;
}

// Each page its own piece of the text, and its number.
void ScaleSubject::fill(std::string_view text) {
    const std::uint64_t pieces = text.size() / PN_PAGE_BYTES;
    for (std::uint64_t index = 0; index < shape_.pages; ++index) {
        std::uint8_t* const at = page(index);
        std::memcpy(at, text.data() + index % pieces * PN_PAGE_BYTES, PN_PAGE_BYTES);
        std::memcpy(at, &index, sizeof index);
        if (index % 65536 == 0) throw_if_interrupted();
    }
}

double ScaleSubject::touch(std::uint64_t count, Touch touch) {
    const std::uint64_t promotions_before = stats().promotions;
    const std::uint64_t began_ns = now_ns();
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t index = random_() % shape_.pages;
        std::uint8_t* const at = page(index);
        std::uint64_t number = 0;
        std::memcpy(&number, at, sizeof number);
        if (number != index) throw std::runtime_error("a page has become another");
        if (touch == Touch::write) at[sizeof number + i % 64] ^= 1;
    }
    const std::uint64_t took_ns = now_ns() - began_ns;
    return static_cast<double>(took_ns) / static_cast<double>(stats().promotions - promotions_before);
}

pn_stats_t ScaleSubject::stats() const {
    pn_stats_t stats = {};
    stats.struct_bytes = sizeof stats;
    stats.version = PN_VERSION;
    must(pn_stats(heap_, &stats), "pn_stats");
    return stats;
}

double ScaleSubject::far_share() const {
    return static_cast<double>(stats().far_logical_bytes) / static_cast<double>(shape_.pages * PN_PAGE_BYTES);
}

}  // namespace pnode::bench
