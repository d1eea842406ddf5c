// The data of the demonstration: one record per stanza of the Debian package catalogue.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pnode::demo {

// `key` is unique in its catalogue; `value` is the stanza as it was read, its last newline included.
struct Record {
    std::string key;
    std::string value;
};

struct Catalogue {
    std::vector<Record> records;
    std::string remark;  // empty, or one line that says why this is not Debian's catalogue and what cures it
};

// Stanzas are separated by empty lines. The key is the package's name; a later stanza of the same name is
// keyed NAME=VERSION, and NAME=VERSION#2, #3... should that be taken too. Text without a "Package:" line is
// no record.
std::vector<Record> parse_catalogue(std::string_view text);

// Records of the same shape, size and compressibility; the same seed gives the same records.
std::vector<Record> synthetic_catalogue(std::size_t count, std::uint64_t seed);

// What `command` prints, parsed; the synthetic catalogue with a remark when that is nothing. At most
// `records_max`.
Catalogue read_catalogue(const std::string& command, std::size_t records_max, std::uint64_t seed);

// Bytes of all keys and values.
std::uint64_t dataset_bytes(const std::vector<Record>& records);

}  // namespace pnode::demo
