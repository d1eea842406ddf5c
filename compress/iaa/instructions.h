// The instructions that talk to a device: 64 bytes stored at once, an enqueue that answers, a wait that
// sleeps. Each is used only where CPUID has it; none is ever probed by executing it.
//
// Thread rule: any thread, any context.
#pragma once

#include <cstdint>

namespace pnode::compress::iaa {

struct Descriptor;

struct Instructions {
    bool movdir64b = false;
    bool enqcmd = false;
    bool waitpkg = false;
};
// Asked once: CPUID traps on a virtual machine.
const Instructions& instructions() noexcept;

// 64 bytes, atomically, past the cache where `portal` is a device's. After everything stored before it.
void store_direct(void* portal, const Descriptor& descriptor) noexcept;
// Without the instruction, and for memory alone: the descriptor's completion_addr is stored last (release).
void store_in_words(void* portal, const Descriptor& descriptor) noexcept;
// False: the queue is at its threshold. `portal` must be a device's.
bool enqueue_command(void* portal, const Descriptor& descriptor) noexcept;
// Returns when the line at `address` is written to, after about 1 us, or for no reason. WAITPKG only.
void wait_for_write(const void* address, bool (*is_written)(const void*)) noexcept;

}  // namespace pnode::compress::iaa
