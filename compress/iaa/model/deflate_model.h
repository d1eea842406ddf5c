// DEFLATE as the device does it: an encoder that knows no codes but those it is given, a decoder that knows
// no distance beyond 4 KiB. Written for being right, not fast, and apart from the libraries that check it.
//
// Thread rule: pure functions; no allocation.
#pragma once

#include "compress/codec.h"
#include "compress/iaa/hardware.h"

namespace pnode::compress::iaa::model {

struct Coded {
    std::uint8_t error = 0;  // of status.h's error, 0 when all went well
    bool overflow = false;   // of the destination
    std::size_t bytes = 0;   // written
};

// What was accumulated, then `source` in the AECS's codes, then the end-of-block if asked for; filled up to a
// byte. `source` is at most 64 KiB.
Coded encode(const CompressAecs& aecs, Bytes source, MutableBytes destination, bool end_of_block) noexcept;

// One whole stream. Bytes after its final block are ignored, as the device does.
Coded decode(Bytes source, MutableBytes destination) noexcept;

}  // namespace pnode::compress::iaa::model
