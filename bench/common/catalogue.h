// Real text to measure with: the Debian package catalogue, or made-up records of the same kind where there is
// none.
#pragma once

#include <string>
#include <vector>

namespace pnode::bench {

struct Record {
    std::string name;
    std::string text;
};

struct Catalogue {
    std::string source;  // for the report
    std::vector<Record> records;
};

// `apt-cache dumpavail`, one record a package (about 64 thousand, 50 MB); where that gives nothing, 50
// thousand JSON records from a fixed seed.
Catalogue load_catalogue();

}  // namespace pnode::bench
