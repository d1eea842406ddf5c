// Any bytes as a DEFLATE stream: our two decoders (the codec's, and the model of the device) and zlib, the
// judge, agree on what it says; none reads or writes outside of what it was given.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <vector>

#include "compress/codec.h"
#include "compress/iaa/model/deflate_model.h"
#include "tests/fuzz/fuzz_input.h"

namespace pnode::fuzz {
namespace {

using compress::Bytes;
using compress::MutableBytes;

constexpr std::size_t guard_bytes = 64;
constexpr std::byte guard{0xA5};
constexpr std::size_t scratch_bytes = 2 << 20;
alignas(compress::scratch_alignment) std::byte scratch_memory[scratch_bytes];

// A destination with bytes around it that must stay.
class Guarded {
  public:
    explicit Guarded(std::size_t bytes) : memory_(bytes + 2 * guard_bytes, guard) {}
    MutableBytes inside() {
        return MutableBytes(memory_).subspan(guard_bytes, memory_.size() - 2 * guard_bytes);
    }
    void check() const {
        for (std::size_t at = 0; at < guard_bytes; ++at)
            require(memory_[at] == guard && memory_[memory_.size() - 1 - at] == guard,
                    "nothing outside is written");
    }

  private:
    std::vector<std::byte> memory_;
};

struct Judged {
    bool whole = false;  // a stream, to its end
    std::vector<std::byte> contents;
};

// window_bits 12 knows no distance beyond 4 KiB, as the device.
Judged judge(Bytes stream, std::size_t bytes_max) {
    Judged judged;
    judged.contents.resize(bytes_max + 1);
    z_stream z{};
    z.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(stream.data()));
    z.avail_in = static_cast<uInt>(stream.size());
    z.next_out = reinterpret_cast<Bytef*>(judged.contents.data());
    z.avail_out = static_cast<uInt>(judged.contents.size());
    require(inflateInit2(&z, -15) == Z_OK, "zlib can be had");
    judged.whole = inflate(&z, Z_FINISH) == Z_STREAM_END;
    judged.contents.resize(z.total_out);
    inflateEnd(&z);
    return judged;
}

bool are_equal(Bytes one, Bytes other) {
    return one.size() == other.size() && std::equal(one.begin(), one.end(), other.begin());
}

void decode(Bytes stream, std::size_t block_bytes) {
    const Judged judged = judge(stream, block_bytes);
    Guarded by_codec(block_bytes);
    const bool ok = compress::codec_by_name("deflate")->decompress(stream, by_codec.inside(),
                                                                   MutableBytes(scratch_memory));
    by_codec.check();
    if (ok)
        require(judged.whole && are_equal(judged.contents, by_codec.inside()),
                "the codec says what zlib says");

    Guarded by_model(block_bytes);
    const compress::iaa::model::Coded coded = compress::iaa::model::decode(stream, by_model.inside());
    by_model.check();
    require(coded.bytes <= block_bytes, "the model writes no more than it may");
    if (coded.error == 0 && !coded.overflow)
        require(judged.whole && are_equal(judged.contents, by_model.inside().first(coded.bytes)),
                "the model says what zlib says");
}

}  // namespace
}  // namespace pnode::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace pnode::fuzz;
    Input input(data, size);
    const std::size_t block_bytes = (1 + input.below(16)) * 4096;
    const std::span<const std::uint8_t> rest = input.rest();
    std::vector<std::byte> stream(rest.size());  // of its own, so that a sanitizer sees its end
    std::ranges::copy(std::as_bytes(rest), stream.begin());
    decode(stream, block_bytes);
    return 0;
}
