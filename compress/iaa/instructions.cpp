#include "compress/iaa/instructions.h"

#include <cpuid.h>
#include <immintrin.h>

#include <atomic>
#include <cstring>

#include "compress/iaa/hardware.h"

namespace pnode::compress::iaa {
namespace {

Instructions ask_processor() noexcept {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return {};
    return {(c & bit_MOVDIR64B) != 0, (c & bit_ENQCMD) != 0, (c & bit_WAITPKG) != 0};
}

}  // namespace

const Instructions& instructions() noexcept {
    static const Instructions found = ask_processor();
    return found;
}

// MOVDIR64B is weakly ordered: the fence puts the buffers and the zeroed record before it.
__attribute__((target("movdir64b"))) void store_direct(void* portal, const Descriptor& descriptor) noexcept {
    _mm_sfence();
    _movdir64b(portal, &descriptor);
}

void store_in_words(void* portal, const Descriptor& descriptor) noexcept {
    constexpr std::size_t last = offsetof(Descriptor, completion_addr) / sizeof(std::uint64_t);
    std::uint64_t words[sizeof descriptor / sizeof(std::uint64_t)];
    std::memcpy(words, &descriptor, sizeof descriptor);
    auto* const slot = static_cast<std::uint64_t*>(portal);
    for (std::size_t i = 0; i < std::size(words); ++i)
        if (i != last) std::atomic_ref(slot[i]).store(words[i], std::memory_order_relaxed);
    std::atomic_ref(slot[last]).store(words[last], std::memory_order_release);
}

__attribute__((target("enqcmd"))) bool enqueue_command(void* portal, const Descriptor& descriptor) noexcept {
    _mm_sfence();
    return _enqcmd(portal, &descriptor) == 0;  // the zero flag: not accepted
}

__attribute__((target("waitpkg"))) void wait_for_write(const void* address,
                                                       bool (*is_written)(const void*)) noexcept {
    constexpr std::uint64_t cycles = 2'000;
    constexpr unsigned deeper_state = 0;  // C0.2
    _umonitor(const_cast<void*>(address));
    if (!is_written(address)) _umwait(deeper_state, __rdtsc() + cycles);
}

}  // namespace pnode::compress::iaa
