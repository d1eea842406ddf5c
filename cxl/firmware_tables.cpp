#include "cxl/firmware_tables.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <vector>

namespace pnode::cxl {

namespace {

// Little-endian numbers; what lies behind the end is 0, and what is visited always has its whole length.
class Bytes {
  public:
    Bytes() = default;
    explicit Bytes(std::string bytes) : bytes_(std::move(bytes)) {}

    std::size_t size() const { return bytes_.size(); }
    template <class Number>
    Number at(std::size_t offset) const {
        if (offset > size() || sizeof(Number) > size() - offset) return 0;
        std::uint64_t number = 0;
        for (std::size_t i = sizeof(Number); i-- > 0;)
            number = number << 8 | static_cast<std::uint8_t>(bytes_[offset + i]);
        return static_cast<Number>(number);
    }
    Bytes part(std::size_t offset, std::size_t length) const { return Bytes(bytes_.substr(offset, length)); }

  private:
    std::string bytes_;
};

Bytes read_table(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return Bytes({std::istreambuf_iterator<char>(file), {}});
}

// The structures of a table, from `first` on; their length is a `Length` at `length_at`.
template <class Length, class Visit>
void for_each_structure(const Bytes& table, std::size_t first, std::size_t length_at, const Visit& visit) {
    for (std::size_t at = first; at < table.size();) {
        const std::size_t length = table.at<Length>(at + length_at);
        if (length < length_at + sizeof(Length) || length > table.size() - at) return;
        visit(table.part(at, length));
        at += length;
    }
}

// ---- SRAT: which proximity domain has which memory, and which processors ----

using Domain = std::uint32_t;

enum SratType : std::uint8_t { local_apic = 0, memory = 1, local_x2apic = 2, arm_processor = 3 };

template <class Visit>
void for_each_affinity(const Bytes& srat, const Visit& visit) {
    constexpr std::size_t header_bytes = 48;
    for_each_structure<std::uint8_t>(srat, header_bytes, 1, visit);
}

bool is_enabled(const Bytes& structure, std::size_t flags_at) {
    return (structure.at<std::uint32_t>(flags_at) & 1) != 0;
}

std::optional<Domain> domain_at(const Bytes& srat, std::uint64_t address) {
    std::optional<Domain> found;
    for_each_affinity(srat, [&](const Bytes& structure) {
        if (structure.at<std::uint8_t>(0) != memory || !is_enabled(structure, 28)) return;
        const auto base = structure.at<std::uint64_t>(8);
        if (address >= base && address - base < structure.at<std::uint64_t>(16))
            found = structure.at<Domain>(2);
    });
    return found;
}

std::optional<Domain> processor_domain(const Bytes& structure) {
    switch (structure.at<std::uint8_t>(0)) {
        case local_apic:  // its second to fourth byte lie apart from the first
            if (!is_enabled(structure, 4)) return {};
            return structure.at<std::uint8_t>(2) | (structure.at<std::uint32_t>(8) & ~Domain{0xff});
        case local_x2apic:
            if (!is_enabled(structure, 12)) return {};
            return structure.at<Domain>(4);
        case arm_processor:
            if (!is_enabled(structure, 10)) return {};
            return structure.at<Domain>(2);
        default:
            return {};
    }
}

std::vector<Domain> processor_domains(const Bytes& srat) {
    std::vector<Domain> domains;
    for_each_affinity(srat, [&](const Bytes& structure) {
        if (const std::optional<Domain> domain = processor_domain(structure)) domains.push_back(*domain);
    });
    return domains;
}

// ---- HMAT: latency and bandwidth between proximity domains ----

enum HmatType : std::uint16_t { attributes = 0, locality = 1 };

enum DataType : std::uint8_t {
    access_latency = 0,
    read_latency = 1,
    write_latency = 2,
    access_bandwidth = 3,
    read_bandwidth = 4,
    write_bandwidth = 5
};

template <class Visit>
void for_each_of(const Bytes& hmat, HmatType type, const Visit& visit) {
    constexpr std::size_t header_bytes = 40;
    for_each_structure<std::uint32_t>(hmat, header_bytes, 4, [&](const Bytes& structure) {
        if (structure.at<std::uint16_t>(0) == type) visit(structure);
    });
}

// The processors next to the memory, if the platform names them; otherwise all: the best figure counts.
std::vector<Domain> initiators_of(Domain target, const Bytes& hmat, const Bytes& srat) {
    std::vector<Domain> initiators = processor_domains(srat);
    for_each_of(hmat, attributes, [&](const Bytes& structure) {
        const bool has_initiator = (structure.at<std::uint16_t>(8) & 1) != 0;
        if (has_initiator && structure.at<Domain>(16) == target) initiators = {structure.at<Domain>(12)};
    });
    return initiators;
}

// In ns or MB/s. The first revision of the table counts latency and bandwidth in tenths, the second latency
// in ps (as the kernel reads them: drivers/acpi/numa/hmat.c).
std::uint64_t normalized(std::uint64_t entry, std::uint64_t unit, bool is_latency, std::uint8_t revision) {
    constexpr std::uint64_t unreachable = 0xffff;
    if (entry == unreachable || unit > std::numeric_limits<std::uint32_t>::max()) return 0;
    std::uint64_t divisor = 1;
    if (revision == 1) divisor = 10;
    if (revision == 2 && is_latency) divisor = 1000;
    return (entry * unit + divisor - 1) / divisor;
}

// The better of the two; 0 is unknown.
void improve(std::uint64_t* known, std::uint64_t told, bool is_latency) {
    if (told == 0) return;
    if (*known == 0 || (is_latency ? told < *known : told > *known)) *known = told;
}

void take(Performance* performance, std::uint8_t data_type, std::uint64_t told) {
    if (data_type == access_latency || data_type == read_latency)
        improve(&performance->read_latency_ns, told, true);
    if (data_type == access_latency || data_type == write_latency)
        improve(&performance->write_latency_ns, told, true);
    if (data_type == access_bandwidth || data_type == read_bandwidth)
        improve(&performance->read_bandwidth_mbps, told, false);
    if (data_type == access_bandwidth || data_type == write_bandwidth)
        improve(&performance->write_bandwidth_mbps, told, false);
}

// One matrix of entries: a row for each initiator, a column for each target.
void take_locality(Performance* performance, const Bytes& structure, std::uint8_t revision,
                   const std::vector<Domain>& initiators, Domain target) {
    constexpr std::size_t lists_at = 32;
    constexpr std::uint8_t hierarchy_mask = 0xf;  // 0 is memory; the others are caches before it
    if ((structure.at<std::uint8_t>(8) & hierarchy_mask) != 0) return;
    const auto data_type = structure.at<std::uint8_t>(9);
    const std::size_t rows = structure.at<std::uint32_t>(12);
    const std::size_t columns = structure.at<std::uint32_t>(16);
    const std::size_t targets_at = lists_at + 4 * rows;
    const std::size_t entries_at = targets_at + 4 * columns;
    if (rows > structure.size() || columns > structure.size()) return;  // their product is no overflow
    if (entries_at + 2 * rows * columns > structure.size()) return;
    for (std::size_t row = 0; row < rows; ++row) {
        const auto initiator = structure.at<Domain>(lists_at + 4 * row);
        if (std::find(initiators.begin(), initiators.end(), initiator) == initiators.end()) continue;
        for (std::size_t column = 0; column < columns; ++column) {
            if (structure.at<Domain>(targets_at + 4 * column) != target) continue;
            const auto entry = structure.at<std::uint16_t>(entries_at + 2 * (row * columns + column));
            const bool is_latency = data_type <= write_latency;
            take(performance, data_type,
                 normalized(entry, structure.at<std::uint64_t>(24), is_latency, revision));
        }
    }
}

}  // namespace

Performance performance_at(std::uint64_t address, const std::string& folder) {
    Performance performance;
    const Bytes srat = read_table(folder + "/SRAT");
    const std::optional<Domain> target = domain_at(srat, address);
    if (!target) return performance;
    const Bytes hmat = read_table(folder + "/HMAT");
    const auto revision = hmat.at<std::uint8_t>(8);
    const std::vector<Domain> initiators = initiators_of(*target, hmat, srat);
    for_each_of(hmat, locality, [&](const Bytes& structure) {
        take_locality(&performance, structure, revision, initiators, *target);
    });
    return performance;
}

}  // namespace pnode::cxl
