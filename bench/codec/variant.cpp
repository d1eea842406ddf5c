#include "bench/codec/variant.h"

#include <stdexcept>

#include "compress/codec.h"
#include "compress/dictionary.h"
#include "compress/iaa/discovery.h"

namespace pnode::bench {

std::string Variant::name() const {
    return codec + (has_dictionary ? "+dict" : "") + ", " + std::to_string(block_bytes / 1024) + " KiB";
}

std::string Variant::heap_codec() const {
    if (is_a_heaps_at_once()) return codec;
    return block_bytes == 4096 && has_dictionary && codec.starts_with("zstd") ? codec + ",dict" : "";
}

std::vector<Variant> all_variants(const std::vector<std::string>& codecs,
                                  const std::vector<std::size_t>& block_bytes, bool dictionaries) {
    std::vector<Variant> variants;
    for (const std::string& codec : codecs) {
        compress::CodecChoice choice;
        // What is made smaller later is two ways; both are here.
        if (codec != "same" &&
            (!compress::parse_codec_choice(codec, &choice) || choice.recompress_level != 0))
            throw std::invalid_argument("no codec is called '" + codec +
                                        "'; there are same, lz4, zstd, "
                                        "zstd:LEVEL, deflate, iaa, iaa:model");
        const bool is_offloaded = choice.offload != compress::Offload::none;
        const bool takes_dictionary = dictionaries && !is_offloaded && choice.codec != nullptr &&
                                      compress::dictionary_codec_of(choice.codec) != nullptr;
        for (const bool with : {false, true})
            for (const std::size_t bytes : block_bytes) {
                if (with && !takes_dictionary) continue;
                if (is_offloaded && bytes != 4096) continue;  // what the device is given
                variants.push_back({codec, bytes, with});
            }
    }
    return variants;
}

std::vector<std::string> default_codecs() {
    std::vector<std::string> codecs = {"same", "lz4", "zstd:-3", "zstd:1", "zstd:3", "zstd:9", "deflate"};
    if (!compress::iaa::find_queues("").usable.empty()) codecs.emplace_back("iaa");
    return codecs;
}

}  // namespace pnode::bench
