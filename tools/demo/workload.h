// What is asked of a server: load every record, read every record back, and stretches of random GETs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tools/demo/catalogue.h"

namespace pnode::demo {

// How the bytes read back compare with the bytes written. Every reply of every stretch is compared.
struct Comparison {
    std::uint64_t compared = 0;
    std::uint64_t different = 0;
    std::string first_different_key;

    void add(const Record& record, std::string_view read_back);
};

// Pipelined SETs over one connection.
void load(int port, const std::vector<Record>& records);

// Pipelined GETs of every record, over one connection.
void read_back(int port, const std::vector<Record>& records, Comparison& comparison);

struct Stretch {
    std::uint64_t seed;            // the same seed asks for the same keys in the same order
    std::uint64_t requests;        // at most
    double seconds_max;            // a slow machine ends the stretch here
    std::size_t connections = 16;  // in parallel, each with one request under way
};

// Uniform random GETs without pipelining; requests per second.
double random_gets(int port, const std::vector<Record>& records, const Stretch& stretch,
                   Comparison& comparison);

}  // namespace pnode::demo
