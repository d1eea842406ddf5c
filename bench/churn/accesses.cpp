#include "bench/churn/accesses.h"

#include <string.h>

#include <atomic>
#include <random>
#include <stdexcept>

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;

bool is_zipf(Mix mix) {
    return mix == Mix::read_zipf || mix == Mix::write_zipf;
}
bool writes(Mix mix) {
    return mix == Mix::write_uniform || mix == Mix::write_zipf;
}

}  // namespace

const char* name_of(Mix mix) {
    switch (mix) {
        case Mix::read_uniform:
            return "read-uniform";
        case Mix::write_uniform:
            return "write-uniform";
        case Mix::read_zipf:
            return "read-zipf-0.99";
        case Mix::write_zipf:
            return "write-zipf-0.99";
        case Mix::steady:
            return "steady";
    }
    return "";
}

AccessSource::AccessSource(std::size_t pages) : pages_(pages), popular_(static_cast<std::uint32_t>(pages)) {}

void AccessSource::make(Mix mix, std::uint64_t seed, std::size_t steady_pages,
                        std::vector<Access>& sequence) const {
    std::mt19937_64 random(seed);
    const std::size_t pages = mix == Mix::steady ? steady_pages : pages_;
    std::uniform_int_distribution<std::uint32_t> uniform(0, static_cast<std::uint32_t>(pages - 1));
    bool write = false;
    for (Access& access : sequence) {
        access.page = (is_zipf(mix) ? popular_.pick(random) : uniform(random)) & 0x7fffffffu;
        access.writes = writes(mix) && write ? 1 : 0;
        write = !write;
    }
}

Contents::Contents(const std::string& text, std::size_t pages) : text_(text), writes_(pages) {}

const char* Contents::text_of(std::size_t page) const {
    return text_.data() + page % (text_.size() / page_bytes) * page_bytes;
}

void Contents::fill(std::byte* memory) const {
    for (std::size_t page = 0; page < writes_.size(); ++page)
        memcpy(memory + page * page_bytes, text_of(page), page_bytes);
}

void Contents::note(const std::vector<Access>& sequence) {
    for (const Access access : sequence) writes_[access.page] += access.writes;
}

void Contents::verify(const std::byte* memory) const {
    for (std::size_t page = 0; page < writes_.size(); ++page) {
        std::uint64_t expected, found;
        memcpy(&expected, text_of(page), sizeof expected);
        memcpy(&found, memory + page * page_bytes, sizeof found);
        if (found != expected + writes_[page] ||
            memcmp(memory + page * page_bytes + sizeof found, text_of(page) + sizeof found,
                   page_bytes - sizeof found) != 0)
            throw std::runtime_error("page " + std::to_string(page) + " does not hold what was written");
    }
}

void access_page(std::byte* memory, Access access) {
    auto& word = *reinterpret_cast<std::uint64_t*>(memory + std::size_t{access.page} * page_bytes);
    const std::atomic_ref<std::uint64_t> counter(word);
    // Relaxed: threads agree on the sum, and it is read after they have been joined.
    if (access.writes)
        counter.fetch_add(1, std::memory_order_relaxed);
    else
        static_cast<void>(counter.load(std::memory_order_relaxed));
}

}  // namespace pnode::bench
