#include "bench/policy/trace.h"

#include <array>
#include <cstdlib>
#include <functional>
#include <istream>
#include <random>
#include <stdexcept>
#include <unordered_map>

#include "bench/common/zipf.h"

namespace pnode::bench {
namespace {

constexpr std::uint32_t keys_per_page = 12;
constexpr unsigned page_bits = 12;
constexpr std::uint32_t page_max = 0x7fffffff;  // what a TraceAccess holds
constexpr std::uint64_t seed = 1;

using Random = std::mt19937_64;
using Picker = std::function<std::uint32_t(Random&, std::size_t)>;  // (random, number of the access) -> page

Picker zipf_keys(std::uint32_t pages, double exponent) {
    return [popular = Zipf(pages * keys_per_page, exponent)](Random& random, std::size_t) {
        return popular.pick(random) / keys_per_page;
    };
}

Picker scan(std::uint32_t pages) {
    return [keys = zipf_keys(pages, Zipf::default_exponent), pages, next = std::uint32_t{0}](
               Random& random, std::size_t number) mutable {
        return number % 10 != 0 ? keys(random, number) : next++ % pages;
    };
}

Picker shift(std::uint32_t pages, std::size_t accesses) {
    return [keys = zipf_keys(pages, Zipf::default_exponent), pages, accesses](Random& random,
                                                                              std::size_t number) {
        const auto phase = static_cast<std::uint32_t>(number * 8 / accesses);
        return (keys(random, number) + phase * (pages / 8 + 1)) % pages;
    };
}

// A key-value store: a request looks at a bucket, an entry, a name, a header, all small and many a page, and
// at a value, of which a page holds few and some reach into the next.
Picker store(std::uint32_t pages, bool is_skewed) {
    constexpr std::uint32_t values_percent = 88, bucket_pages_percent = 2, entry_pages_percent = 3,
                            name_pages_percent = 5;
    constexpr std::uint32_t values_per_page = 5, crossing_percent = 18;
    const std::uint32_t value_pages = pages * values_percent / 100, keys = value_pages * values_per_page;
    struct Table {
        std::uint32_t first, pages;
    };
    std::array<Table, 4> tables{};
    std::uint32_t first = value_pages;
    const std::array<std::uint32_t, 4> percents = {bucket_pages_percent, entry_pages_percent,
                                                   name_pages_percent, 2};
    for (std::size_t index = 0; index < tables.size(); ++index) {
        tables[index] = {first, pages * percents[index] / 100};
        first += tables[index].pages;
    }
    return [=, popular = Zipf(keys), step = std::size_t{0}, key = std::uint32_t{0}](Random& random,
                                                                                    std::size_t) mutable {
        if (step == 0)
            key = is_skewed ? popular.pick(random)
                            : std::uniform_int_distribution<std::uint32_t>(0, keys - 1)(random);
        const std::size_t now = step++;
        if (now < tables.size()) {
            const std::uint64_t place = now == 0 ? key * 2654435761u % keys : key;
            return tables[now].first + static_cast<std::uint32_t>(place * tables[now].pages / keys);
        }
        const std::uint32_t page = key / values_per_page;
        if (now == tables.size() && random() % 100 < crossing_percent && page + 1 < value_pages) return page;
        step = 0;
        return now == tables.size() ? page : page + 1;
    };
}

Picker picker(const std::string& name, std::uint32_t pages, std::size_t accesses) {
    if (name == "uniform")
        return [pages](Random& random, std::size_t) {
            return std::uniform_int_distribution<std::uint32_t>(0, pages - 1)(random);
        };
    if (name == "zipf-pages")
        return [popular = Zipf(pages)](Random& random, std::size_t) { return popular.pick(random); };
    if (name == "zipf-keys") return zipf_keys(pages, Zipf::default_exponent);
    if (name == "zipf-1.2-keys") return zipf_keys(pages, 1.2);
    if (name == "loop")
        return [pages](Random&, std::size_t number) { return static_cast<std::uint32_t>(number % pages); };
    if (name == "scan") return scan(pages);
    if (name == "store") return store(pages, false);
    if (name == "store-zipf") return store(pages, true);
    if (name == "shift") return shift(pages, accesses);
    throw std::runtime_error("there is no trace " + name);
}

// " S 1ffeffe70,8" -> page and whether it writes; false for every other line.
bool parse_line(const std::string& line, std::uint64_t* page, bool* writes) {
    if (line.size() < 4 || line[0] != ' ' || line[2] != ' ') return false;
    if (line[1] != 'L' && line[1] != 'S' && line[1] != 'M') return false;
    char* end = nullptr;
    *page = std::strtoull(line.c_str() + 3, &end, 16) >> page_bits;
    *writes = line[1] != 'L';
    return *end == ',';
}

}  // namespace

const std::vector<std::string>& trace_names() {
    static const std::vector<std::string> names = {
        "uniform",           "uniform/w50", "zipf-keys", "zipf-keys/w50", "zipf-pages", "zipf-pages/w50",
        "zipf-1.2-keys/w50", "loop",        "scan",      "shift/w50",     "store",      "store-zipf"};
    return names;
}

Trace made_up_trace(const std::string& name, std::uint32_t pages, std::size_t accesses) {
    const std::size_t slash = name.find("/w");
    const unsigned long write_percent =
        slash == std::string::npos ? 0 : std::strtoul(name.c_str() + slash + 2, nullptr, 10);
    Picker pick = picker(name.substr(0, slash), pages, accesses);
    Trace trace{name, pages, {}};
    trace.accesses.reserve(accesses);
    Random random(seed);
    for (std::size_t number = 0; number < accesses; ++number) {
        const std::uint32_t page = pick(random, number);
        const bool writes = write_percent != 0 && random() % 100 < write_percent;
        trace.accesses.push_back({page & page_max, writes ? 1u : 0u});
    }
    return trace;
}

Trace recorded_trace(std::istream& text, const std::string& name, std::size_t accesses_max) {
    Trace trace{name, 0, {}};
    std::unordered_map<std::uint64_t, std::uint32_t> numbers;
    for (std::string line; trace.accesses.size() < accesses_max && std::getline(text, line);) {
        std::uint64_t page = 0;
        bool writes = false;
        if (!parse_line(line, &page, &writes)) continue;
        const auto [found, unused] = numbers.try_emplace(page, static_cast<std::uint32_t>(numbers.size()));
        const std::uint32_t number = found->second;
        if (!trace.accesses.empty() && trace.accesses.back().page == number)
            trace.accesses.back().writes |= writes ? 1u : 0u;
        else
            trace.accesses.push_back({number & page_max, writes ? 1u : 0u});
    }
    trace.pages = static_cast<std::uint32_t>(numbers.size());
    if (trace.accesses.empty())
        throw std::runtime_error(name + ": no access in it (--tool=lackey --trace-mem=yes)");
    return trace;
}

}  // namespace pnode::bench
