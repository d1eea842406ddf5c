// Which pages are read and written in what order, and what must be in them afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/common/zipf.h"

namespace pnode::bench {

// `steady` is no churn: uniform reads of a working set that fits, for what goes on in the background then.
enum class Mix : std::uint8_t { read_uniform, write_uniform, read_zipf, write_zipf, steady };
inline constexpr Mix mixes[] = {Mix::read_uniform, Mix::write_uniform, Mix::read_zipf, Mix::write_zipf,
                                Mix::steady};
const char* name_of(Mix mix);

struct Access {
    std::uint32_t page : 31;
    std::uint32_t writes : 1;  // every second access of the write_ mixes
};
static_assert(sizeof(Access) == 4);

class AccessSource {
  public:
    explicit AccessSource(std::size_t pages);
    // The same seed gives the same sequence. `steady` stays within the first `steady_pages`.
    void make(Mix mix, std::uint64_t seed, std::size_t steady_pages, std::vector<Access>& sequence) const;

  private:
    std::size_t pages_;
    Zipf popular_;
};

// Text in pages; a write adds one to the page's first word. Kept up by hand, outside what is timed.
class Contents {
  public:
    // `text` must outlive this and be at least a page long; pages beyond its end repeat it.
    Contents(const std::string& text, std::size_t pages);
    void fill(std::byte* memory) const;
    // All of `sequence` was done to the memory.
    void note(const std::vector<Access>& sequence);
    // Compares every byte. Throws std::runtime_error naming the first page that differs.
    void verify(const std::byte* memory) const;

  private:
    const char* text_of(std::size_t page) const;
    const std::string& text_;
    std::vector<std::uint64_t> writes_;  // a page
};

// Does accesses [begin, end). Any number of threads at once over the same memory.
void access_page(std::byte* memory, Access access);

}  // namespace pnode::bench
