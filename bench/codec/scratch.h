// Memory that codecs work in: aligned and zero-filled once, as they want it (compress/codec.h).
#pragma once

#include <memory>
#include <new>

#include "compress/codec.h"

namespace pnode::bench {

class Scratch {
  public:
    explicit Scratch(std::size_t bytes) : bytes_(bytes), memory_(new (alignment) std::byte[bytes]()) {}
    compress::MutableBytes span() { return {memory_.get(), bytes_}; }

  private:
    static constexpr std::align_val_t alignment{compress::scratch_alignment};
    struct Delete {
        void operator()(std::byte* memory) const { ::operator delete[](memory, alignment); }
    };
    std::size_t bytes_;
    std::unique_ptr<std::byte[], Delete> memory_;
};

}  // namespace pnode::bench
