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
    // Changes the near limit; the kernel's is set from outside.
    virtual void set_near_bytes(std::uint64_t bytes) = 0;

    struct Usage {
        std::uint64_t near_bytes = 0;
        std::uint64_t far_bytes = 0;  // physical, kept blobs included
    };
    virtual Usage usage() const = 0;
};

// `engine`: "thread" or "inline": a heap with one buffer; "zram": anonymous memory, whose limits are its
// control group's (usage is all 0 then). Throws std::runtime_error with the reason and its cure.
std::unique_ptr<Subject> make_subject(const std::string& engine, std::size_t bytes);

}  // namespace pnode::bench
