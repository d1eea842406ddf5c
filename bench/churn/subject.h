// What is measured: a range of memory of which only a part may stay near, and who sees to that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace pnode::bench {

class Subject {
  public:
    virtual ~Subject() = default;
    virtual std::byte* memory() const = 0;
    struct Limits {
        std::uint64_t near_bytes = 0;
        std::uint64_t total_bytes = 0;  // of near and far; 0: none
    };
    // Nobody accesses the memory meanwhile. The kernel's limit is set from outside.
    virtual void set_limits(const Limits& limits) = 0;

    struct Usage {
        std::uint64_t near_bytes = 0;
        std::uint64_t far_bytes = 0;  // physical, kept blobs included
    };
    virtual Usage usage() const = 0;
};

// `engine`: "thread" or "inline": a heap with one buffer; "inline+": the same with a far limit as large as
// the memory, so that every near page may keep its blob; "thread*", "inline*": with PN_HEAP_PINNED_IO;
// one of the floors (floor_subject.h); "zram": anonymous memory, whose limits are its control group's (usage
// is all 0 then). Throws std::runtime_error with the reason and its cure.
inline constexpr const char* floor_of_reads = "floor";
inline constexpr const char* floor_of_writes = "floor-writes";
inline constexpr const char* floor_with_codec = "floor-lz4";  // of reads
std::unique_ptr<Subject> make_subject(const std::string& engine, std::size_t bytes);

}  // namespace pnode::bench
