// A sequence of page accesses: made up, or recorded from a program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace pnode::bench {

struct TraceAccess {
    std::uint32_t page : 31;
    std::uint32_t writes : 1;
};

struct Trace {
    std::string name;
    std::uint32_t pages = 0;  // numbered 0 .. pages - 1
    std::vector<TraceAccess> accesses;
};

// What made_up_trace() knows, with an optional "/w50": so many of 100 accesses write.
//   uniform   zipf-pages   zipf-keys (12 keys a page)   zipf-1.2-keys
//   loop      all pages in order, again and again
//   scan      zipf-keys, and a tenth of the accesses read through all pages in order
//   shift     zipf-keys whose popular keys become others every eighth of the trace
const std::vector<std::string>& trace_names();

// The same for the same arguments. Throws std::runtime_error for a name it does not know.
Trace made_up_trace(const std::string& name, std::uint32_t pages, std::size_t accesses);

// A recorded one: the output of `valgrind --tool=lackey --trace-mem=yes PROGRAM` (" L 1ffe,8", " S ...",
// " M ..."; addresses in hexadecimal; all else is passed over), at most `accesses_max` of it. Accesses to the
// same page one after another are one access. Throws std::runtime_error when there is none.
Trace recorded_trace(std::istream& text, const std::string& name, std::size_t accesses_max);

}  // namespace pnode::bench
