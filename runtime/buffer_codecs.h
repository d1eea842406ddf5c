// Codecs of single buffers (pn_buffer_set_codec): a page's traits name one by number, 0 is the heap's.
//
// A heap has room for seven, which stay as long as it does: the scratch of each is its own in every lane, for
// a codec's context stays where it was made (compress/scratch_label.h).
//
// Thread rule: add() under the heap's span lock; find() by anybody, and it may be told a number before it is
// known here to the caller's processor: then the heap's codec does. Fork: private memory, the child's too.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <span>

#include "compress/blob.h"
#include "compress/codec.h"
#include "runtime/os/memory.h"

namespace pnode {

class BufferCodecs {
  public:
    static constexpr unsigned count_max = 7;

    struct Entry {
        compress::CodecChoice choice;
        std::size_t scratch_bytes = 0;
        os::Mapping memory;
        std::span<std::byte> scratch(unsigned lane) const noexcept {
            return {memory.address() + lane * scratch_bytes, scratch_bytes};
        }
    };

    // Of software alone, and done once: nothing that is made smaller later.
    static bool is_possible(const compress::CodecChoice& choice) noexcept {
        return choice.offload == compress::Offload::none && choice.recompress_codec == nullptr &&
               !choice.codec->keeps_size;
    }

    // The number of this choice, with scratch for so many lanes. ENOSPC ENOMEM.
    int add(const compress::CodecChoice& choice, unsigned lanes, unsigned* number) noexcept {
        const unsigned count = count_.load(std::memory_order_relaxed);
        for (unsigned index = 0; index < count; ++index) {
            const compress::CodecChoice& other = entries_[index].choice;
            *number = index + 1;
            if (other.codec == choice.codec && other.level == choice.level) return 0;
        }
        if (count == count_max) return ENOSPC;
        Entry& entry = entries_[count];
        constexpr std::size_t page = 4096;
        entry.scratch_bytes = (compress::encode_scratch_bytes(choice) + page - 1) / page * page;
        if (const int error = entry.memory.map(lanes * entry.scratch_bytes)) return error;
        entry.choice = choice;
        count_.store(count + 1, std::memory_order_release);
        *number = count + 1;
        return 0;
    }

    // nullptr: the heap's.
    const Entry* find(unsigned number) const noexcept {
        if (number == 0 || number > count_.load(std::memory_order_acquire)) return nullptr;
        return &entries_[number - 1];
    }

  private:
    std::array<Entry, count_max> entries_;
    std::atomic<unsigned> count_{0};
};

}  // namespace pnode
