// Anonymous memory without huge pages, as a heap's is.
#pragma once

#include <cstddef>

namespace pnode::bench {

class AnonymousMemory {
  public:
    // Throws std::system_error.
    explicit AnonymousMemory(std::size_t bytes);
    ~AnonymousMemory();
    AnonymousMemory(const AnonymousMemory&) = delete;
    AnonymousMemory& operator=(const AnonymousMemory&) = delete;
    std::byte* data() const { return data_; }

  private:
    std::byte* data_;
    std::size_t bytes_;
};

}  // namespace pnode::bench
